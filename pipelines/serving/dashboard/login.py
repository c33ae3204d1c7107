"""The login: a token of the order API against a cookie. A plain page, without scripts."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from pipelines.serving.dashboard.sessions import COOKIE, Sessions

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Log in · Stockcast</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root{{color-scheme:light dark}}body{{font:15px/1.5 system-ui,sans-serif}}
body{{display:grid;place-items:center;min-height:90vh;margin:0 16px}}
form{{width:340px;max-width:100%;display:grid;gap:12px}}h1{{font-size:21px;margin:0}}
input{{font:inherit;padding:9px 11px;border:1px solid #8a929c;border-radius:8px}}
button{{font:inherit;font-weight:600;padding:9px;border:0;border-radius:8px;background:#0072b2;color:#fff}}
p{{margin:0;opacity:.75}}.no{{color:#d55e00;opacity:1}}</style></head><body>
<form method="post" action="/login"><h1>Stockcast</h1>{said}
<label for="token">Your token for the order API</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
<button>Log in</button></form></body></html>"""
LARGEST_FORM = 4_096


def add_login(app: FastAPI, sessions: Sessions) -> None:
    """The addresses `/login` and `/logout`."""

    @app.get("/login", include_in_schema=False)
    def ask() -> Response:
        return RedirectResponse("/", 303) if sessions.is_open else HTMLResponse(_PAGE.format(said=""))

    @app.post("/login", include_in_schema=False)
    def log_in(request: Request, token: Annotated[str, Depends(_token)]) -> Response:
        cookie = sessions.login(token)
        if cookie is None:
            said = '<p class="no" role="alert">This token is not known here.</p>'
            return HTMLResponse(_PAGE.format(said=said), 401)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=secure, path="/")
        return answer

    @app.get("/logout", include_in_schema=False)
    def log_out(request: Request) -> Response:
        sessions.logout(request.cookies.get(COOKIE))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer


async def _token(request: Request) -> str:
    body = await request.body()
    fields = parse_qs(body[:LARGEST_FORM].decode("utf-8", "replace"))
    return fields.get("token", [""])[0]
