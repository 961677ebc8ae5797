"""What can go wrong. Everything derives from `FastpubsubError`."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx


class FastpubsubError(Exception):
    """Base of the errors of this package."""


class NoAnswer(FastpubsubError):
    """The server could not be reached, or its answer was lost: whether the request was done is not known."""


class Fault(NamedTuple):
    """One thing that is wrong with a request."""

    field: str  #: its place, such as `messages.1.priority`
    message: str  #: what is wrong, and the limit


class ApiError(FastpubsubError):
    """The server answered with an error; its subclasses say which."""

    statuses: tuple[int, ...] = ()

    def __init__(self, response: httpx.Response) -> None:
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):  # it comes from a proxy
            body = {}
        detail = body.get("detail") or body.get("error_description") or response.text[:1000]
        #: the HTTP status
        self.status: int = response.status_code
        #: what is wrong with which field, of an error 422
        self.faults: list[Fault] = _faults(detail) if isinstance(detail, list) else []
        #: what is wrong, for people
        self.detail: str = "; ".join(map(": ".join, self.faults)) or str(detail)
        #: what the error is about, such as the receipts of a transaction that are stale
        self.about: list[str] = body.get("about", [])
        #: seconds after which to try again, if the server said so
        self.retry_after: float | None = _seconds(response.headers.get("Retry-After"))
        #: names the request in the log of the server
        self.request_id: str | None = response.headers.get("X-Request-Id")
        request = response.request
        super().__init__(f"{request.method} {request.url.path}: {self.status} {self.detail}")

    @property
    def field(self) -> str | None:
        """The first field that is wrong, such as `messages.1.priority`."""
        return self.faults[0].field if self.faults else None


class InvalidRequest(ApiError):
    """A field is missing, unknown or beyond its limits; `faults` says which."""

    statuses = (400, 422)


class Unauthorized(ApiError):
    """The credentials are not good."""

    statuses = (401,)


class Forbidden(ApiError):
    """The client lacks a scope."""

    statuses = (403,)


class NotFound(ApiError):
    """There is no such topic or subscription."""

    statuses = (404,)


class Conflict(ApiError):
    """It exists already, or a receipt is stale."""

    statuses = (409,)


class TooLarge(ApiError):
    """A message, or all of a request, is too large."""

    statuses = (413,)


class Unavailable(ApiError):
    """The server, or its database, cannot do it at the moment."""

    statuses = (429, 502, 503, 504)


def error_of(response: httpx.Response) -> ApiError:
    """The exception of an answer that is none of success."""
    kinds = (kind for kind in ApiError.__subclasses__() if response.status_code in kind.statuses)
    return next(kinds, ApiError)(response)


def _faults(detail: list[Any]) -> list[Fault]:
    def place(loc: list[Any]) -> str:
        return ".".join(str(part) for part in (loc[1:] if loc[:1] == ["body"] and loc[1:] else loc))

    return [Fault(place(fault.get("loc", [])), str(fault.get("msg"))) for fault in detail]


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:  # a date, which fastpubsub never says
        return None
