"""How a request is sent: credentials, what is tried again and when. Nothing here waits or does I/O."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Generic, TypeVar
from urllib.parse import quote

import httpx

from .errors import FastpubsubError, NoAnswer, error_of

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
log = logging.getLogger("fastpubsub_client")

# What fails before anything was sent.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_TOKEN_PATH = "/oauth/token"


def _same(data: Any) -> Any:
    return data


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request whose answer is a T."""

    method: str
    path: str
    body: bytes | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    #: it does no harm to do it twice, so it is sent again when an answer is lost
    safe: bool = True
    #: the server may take so long, in seconds, before it answers
    wait_seconds: float = 0
    parse: Callable[[Any], Any] = _same

    def result(self, answer: httpx.Response) -> T:
        """What the answer says."""
        try:
            result: T = self.parse(answer.json() if answer.content else None)
        except (ValueError, LookupError, TypeError) as error:
            raise NoAnswer(f"{self.method} {self.path}: it was not fastpubsub that answered") from error
        return result


def send(method: str, body: Any, *path: str, **more: Any) -> Call[Any]:
    """A call with a JSON body."""
    content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    return Call(method, path_of(*path), content, **more)


def path_of(*parts: str) -> str:
    """The path of a route: what is in ids is not taken for more of it."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def without_none(**fields: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


class Connection:
    """Where a server is, and how to speak to it.

    base_url        such as `http://localhost:8000`
    client_id, client_secret; api_key; token    one of the three, where the server asks for any
    timeout         seconds for an answer; a pull has its `wait_seconds` in addition
    retry_seconds   how long to go on trying what may be tried again; 0 for never
    http_options    more for the client of httpx, such as `{"verify": context}`
    """

    def __init__(
        self,
        base_url: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        api_key: str | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        retry_seconds: float = 30.0,
        http_options: Mapping[str, Any] | None = None,
    ) -> None:
        if (client_id is None) != (client_secret is None):
            raise ValueError("client_id and client_secret go together")
        if sum(given is not None for given in (client_id, api_key, token)) > 1:
            raise ValueError("give one of client_id with client_secret, api_key, token")
        self._timeout = timeout
        self._retry_seconds = retry_seconds
        self._options: dict[str, Any] = {"base_url": base_url, "timeout": timeout, **(http_options or {})}
        if client_id is not None and client_secret is not None:
            url = base_url.rstrip("/") + _TOKEN_PATH
            self._options["auth"] = ClientCredentials(url, client_id, client_secret)
        given = {"X-API-Key": api_key, "Authorization": token and f"Bearer {token}"}
        headers = {name: value for name, value in given.items() if value}
        self._options["headers"] = {**headers, **self._options.get("headers", {})}
        self._open()

    def _open(self) -> None:
        raise NotImplementedError

    @classmethod
    def _like(cls, other: Connection) -> Self:
        """One to the same server, with the same settings and the same token."""
        same = cls.__new__(cls)
        same.__dict__.update(other.__dict__)
        same._open()
        return same

    def _arguments(self, call: Call[Any]) -> dict[str, Any]:
        """What httpx is asked for."""
        json_type = {"Content-Type": "application/json"} if call.body is not None else {}
        return {
            "method": call.method,
            "url": call.path,
            "content": call.body,
            "params": call.params,
            "headers": {**json_type, **call.headers},
            "timeout": httpx.Timeout(self._timeout, read=self._timeout + call.wait_seconds),
        }


class ClientCredentials(httpx.Auth):
    """Gets tokens for a client's id and secret: before the old one ends, and once when it is refused."""

    requires_response_body = True

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self._url = url
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        self._token = ""
        self._fresh_until = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Of httpx: yields requests, gets answers; the last answer is the caller's."""
        for is_last in (False, True):
            if not self._token or time.monotonic() >= self._fresh_until:
                asked_at = time.monotonic()
                login = httpx.Request("POST", self._url, data=self._form, extensions=request.extensions)
                answer = yield login
                if not answer.is_success:
                    return
                told = answer.json()
                self._token, life = told["access_token"], float(told["expires_in"])
                self._fresh_until = asked_at + life - min(60.0, life / 4)
            token = self._token
            request.headers["Authorization"] = f"Bearer {token}"
            answer = yield request
            if answer.status_code != httpx.codes.UNAUTHORIZED or is_last:
                return
            if self._token == token:  # nobody else got a new one meanwhile
                self._token = ""


class Attempts:
    """Says after each failure of a call how long to wait before the next try, or raises."""

    def __init__(self, call: Call[Any], retry_seconds: float) -> None:
        self._call = call
        self._until = time.monotonic() + retry_seconds
        self._count = 0

    def failed(self, error: httpx.TransportError) -> float:
        """Seconds to wait after there was no answer."""
        unsent = isinstance(error, _UNSENT) or error.request.url.path.endswith(_TOKEN_PATH)
        again = (self._call.safe or unsent) and not isinstance(
            error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
        )
        text = f"{self._call.method} {self._call.path}: {str(error) or type(error).__name__}"
        return self._pause(NoAnswer(text), again, 0.0, error)

    def refused(self, response: httpx.Response) -> float:
        """Seconds to wait after an answer that is none of success."""
        error = error_of(response)
        # no token, so the request itself was never sent
        safe = self._call.safe or response.request.url.path.endswith(_TOKEN_PATH)
        again = error.status == httpx.codes.TOO_MANY_REQUESTS or (safe and error.status in (502, 503, 504))
        return self._pause(error, again, error.retry_after or 0.0)

    def _pause(self, error: FastpubsubError, again: bool, least: float, cause: Exception | None = None) -> float:
        backoff: float = min(5.0, 0.1 * 2 ** min(self._count, 7))
        pause = least + random.uniform(0.5, 1.0) * backoff
        if not again or time.monotonic() + pause > self._until:
            raise error from cause
        self._count += 1
        log.warning("%s; trying again in %.1f s", error, pause)
        return pause
