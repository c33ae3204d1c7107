"""A limit to the size of request bodies, whether or not their length was announced."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serving.problems import problem_response


class BodyLimit:
    """Answers 413 to a body of more than `largest` bytes, without reading it to its end."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app = app
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As every ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        body = None
        if announced.isdigit() and int(announced) <= self._largest:
            body = await self._read(receive)
        if body is None:
            detail = f"the body has more than {self._largest} bytes, the most that is taken (api.largest_body_bytes)"
            await problem_response(413, detail, {"connection": "close"})(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None for one that is too long."""
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._largest:
                return None
        return body
