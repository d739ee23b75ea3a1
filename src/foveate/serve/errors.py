"""What went wrong with a request, in the shape OpenAI's clients show to whoever sent it."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer of 4xx or 5xx; ``param`` names the argument it is about."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad(message: str, param: str | None = None) -> ApiError:
    """The client's mistake."""
    return ApiError(400, message, param=param)
