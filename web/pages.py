"""This file is what all pages for people have in common: their headers, and the files they are made of."""

from __future__ import annotations

from importlib.resources import files

from quart import Blueprint, Response

from web.answers import Refused

# Nothing but our own files, no inline style or script, nobody's frame, and forms that post to us alone.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


async def protect_page(response: Response) -> Response:
    """For `after_request` of whatever a browser shows."""
    response.headers.update(_HEADERS)
    return response


def static_blueprint() -> Blueprint:
    """GET /static/<name>: three small files, read once."""
    blueprint = Blueprint("static_files", __name__)
    blueprint.after_request(protect_page)
    folder = files("web") / "static"
    contents = {name: (folder / name).read_bytes() for name in _STATIC}

    @blueprint.get("/static/<name>")
    async def get_static(name: str) -> Response:
        if name not in contents:
            raise Refused(404, "not_found", "There is no such file.")
        return Response(contents[name], content_type=_STATIC[name])

    return blueprint
