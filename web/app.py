"""This file puts the application together: routes and who may call them. No logic."""

from __future__ import annotations

from quart_trio import QuartTrio

from engine import Scheduler, Settings
from web.answers import register_error_answers
from web.auth import Credential, Operator
from web.connection import HTTPConnection
from web.csrf import FormTokens
from web.dashboard import dashboard_blueprint
from web.events import events_blueprint
from web.explain import explain_blueprint
from web.freshness import freshness_blueprint
from web.health import health_blueprint
from web.json_body import BUFFER_BYTES
from web.login import login_blueprint
from web.metrics import metrics_blueprint
from web.openapi import openapi_blueprint
from web.pages import static_blueprint
from web.run import run_blueprint
from web.runs import runs_blueprint
from web.sessions import are_cookies_secure, derive_key, use_sessions
from web.trigger_engine import trigger_engine_blueprint
from web.watch import Watch


def create_app(scheduler: Scheduler, settings: Settings) -> QuartTrio:
    """The ASGI application around a scheduler that stays open as long as it serves."""
    app = QuartTrio(__name__, static_folder=None)
    app.asgi_http_class = HTTPConnection
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = BUFFER_BYTES
    # Else `/runs//x` is redirected, by a page, and to whichever host the request names.
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the summary's order is documented

    register_error_answers(app)
    app.register_blueprint(health_blueprint(scheduler))
    app.register_blueprint(freshness_blueprint(scheduler))
    app.register_blueprint(openapi_blueprint(app))
    app.register_blueprint(run_blueprint(scheduler, Credential(settings.secret, settings.secret_next)))
    service_role_key = Credential(settings.service_role_key)
    if service_role_key.is_set:
        app.register_blueprint(trigger_engine_blueprint(scheduler.built_in, service_role_key))
    operator = Operator(settings.operator_token)
    app.register_blueprint(metrics_blueprint(scheduler, settings.freshness_limit, operator))
    if settings.operator_token is not None:
        use_sessions(app, settings.operator_token, settings)
        forms = FormTokens(derive_key(settings.operator_token, "forms"), secure=are_cookies_secure(settings))
        watch = Watch(scheduler, settings)
        app.register_blueprint(runs_blueprint(scheduler, operator))
        app.register_blueprint(explain_blueprint(scheduler, operator))
        app.register_blueprint(login_blueprint(operator, forms))
        app.register_blueprint(dashboard_blueprint(scheduler, settings, operator, forms, watch))
        app.register_blueprint(events_blueprint(scheduler, settings, operator, watch))
        app.register_blueprint(static_blueprint())
    return app
