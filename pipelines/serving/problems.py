"""Errors of the order API as RFC 9457 problem documents: what happened, and what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pipelines.errors import KeyReusedError, OrderConflictError, StockcastError, UnknownOrderError
from pipelines.restocking.webhooks import SignatureError

_STATUS: dict[type[StockcastError], int] = {
    UnknownOrderError: 404,
    OrderConflictError: 409,
    KeyReusedError: 422,
    SignatureError: 401,
}


class Problem(Exception):
    """An answer other than success."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more


def problem_response(
    status: int, detail: str, headers: dict[str, str] | None = None, more: dict[str, Any] | None = None
) -> Response:
    """A problem document."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(
        orjson.dumps(document | (more or {})), status, headers=headers, media_type="application/problem+json"
    )


def answer_with_problems(app: FastAPI) -> None:
    """Make every error of the application a problem document."""

    def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101  (registered for it)
        return problem_response(error.status, error.detail, error.headers, error.more)

    def on_stockcast_error(_: Request, error: Exception) -> Response:
        status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 503)
        return problem_response(status, str(error))

    def on_http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        detail = {404: "there is nothing at this address; GET /openapi.json lists what there is"}
        return problem_response(error.status_code, detail.get(error.status_code, str(error.detail)))

    def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        wrong = [
            {"field": ".".join(str(part) for part in problem["loc"][1:]), "expected": problem["msg"]}
            for problem in error.errors()
        ]
        if any(problem["type"] == "json_invalid" for problem in error.errors()):
            return problem_response(400, "the body is not JSON; send one JSON object")
        said = "; ".join(f"{item['field'] or 'body'}: {item['expected']}" for item in wrong)
        return problem_response(422, said, more={"errors": wrong})

    def on_anything(_: Request, __: Exception) -> Response:
        return problem_response(500, "an error of the order API's own; its log has more. The request may be repeated")

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(StockcastError, on_stockcast_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_anything)
