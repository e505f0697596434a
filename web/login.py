"""This file is GET and POST /login, and POST /logout: the operator token begins a session."""

from __future__ import annotations

import math
from urllib.parse import parse_qs

from quart import Blueprint, Response, redirect, render_template
from quart_auth import login_user, logout_user

from web.auth import Operator, count_refusal
from web.csrf import FIELD, FormTokens
from web.json_body import read_body
from web.login_attempts import LoginAttempts
from web.openapi import for_browsers
from web.pages import protect_page
from web.sessions import new_session

# A token, its form's token and their names.
MAX_FORM_BYTES = 4 * 1024

# Where to go from here, whatever a request says.
HOME, ENTRANCE = "/dashboard", "/login"

_STALE = "That form was too old, or not from here. Please try again."
_NEEDS_HTTPS = "Your browser did not send the cookie back: this page needs https."


def login_blueprint(operator: Operator, forms: FormTokens) -> Blueprint:
    blueprint = Blueprint("login", __name__, template_folder="templates")
    blueprint.after_request(protect_page)
    attempts = LoginAttempts()

    @blueprint.get(ENTRANCE)
    @for_browsers
    async def get_login() -> Response:
        if await operator.has_session():
            return _see_other(HOME)
        return await show_form(200)

    @blueprint.post(ENTRANCE)
    @for_browsers
    async def post_login() -> Response:
        form = await _read_form()
        if not forms.is_ours(form.get(FIELD, ""), "login"):
            return await show_form(403, _NEEDS_HTTPS if forms.is_cookie_kept_back() else _STALE)
        if pause := attempts.pause_left():
            seconds = math.ceil(pause)
            page = await show_form(429, f"Too many wrong tokens. Please try again in {seconds} s.")
            page.headers["Retry-After"] = str(seconds)
            return page
        if not operator.token.opens(form.get("token", "").strip()):
            attempts.count_failure()
            count_refusal()
            return await show_form(401, "That is not the operator token.")
        attempts.forget()
        login_user(new_session())
        return _see_other(HOME)

    @blueprint.post("/logout")
    @for_browsers
    async def post_logout() -> Response:
        form = await _read_form()
        if not forms.is_ours(form.get(FIELD, ""), "logout"):
            # To a page with a form that is good, if somebody is there to see it.
            return _see_other(HOME if await operator.has_session() else ENTRANCE)
        logout_user()
        return _see_other(ENTRANCE)

    async def show_form(status: int, fault: str | None = None) -> Response:
        nonce, form_token = forms.issue("login")
        page = Response(
            await render_template("login.html", fault=fault, field=FIELD, form_token=form_token),
            status=status,
            content_type="text/html; charset=utf-8",
        )
        forms.remember(page, nonce)
        return page

    return blueprint


async def _read_form() -> dict[str, str]:
    """The fields that are there once. Raises Refused for a body that is too large or too slow."""
    body = await read_body(MAX_FORM_BYTES)
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=8, strict_parsing=bool(body))
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items() if len(values) == 1}


def _see_other(path: str) -> Response:
    response: Response = redirect(path, 303)  # type: ignore[assignment]
    return response
