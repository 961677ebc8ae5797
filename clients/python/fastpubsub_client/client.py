"""The clients: `Client` blocks, `AsyncClient` is the same for asyncio."""

from __future__ import annotations

import asyncio
import functools
import operator
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable

import httpx

from . import messages as wire
from .messages import (
    DeadLetter,
    Extend,
    Message,
    Nack,
    OutgoingMessage,
    Published,
    Reject,
    SettleResult,
    Subscription,
    Topic,
)
from .publisher import AsyncPublisher, Publisher
from .transport import Attempts, Call, Connection, T, path_of, send, without_none
from .worker import AsyncWorker, Worker

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, Unpack

    from .messages import PublishOptions, SubscriptionSettings
    from .publisher import PublisherOptions
    from .worker import WorkerOptions

    P = ParamSpec("P")


def _blocking(build: Callable[Concatenate[Client, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """Of a method that says what to send, one that sends it."""

    @functools.wraps(build)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(build(self, *args, **kwargs))

    return method


def _paged(build: Callable[Concatenate[Client, P], Call[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    """The same for a list, page after page. A page may be short: only an empty one is the end."""

    @functools.wraps(build)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        call = build(self, *args, **kwargs)
        after: dict[str, str] = {}
        while page := self._run(_page(call, after)):
            yield from map(call.parse, page)
            after = {"after": page[-1]["id"]}

    return method


def _page(call: Call[Any], after: dict[str, str]) -> Call[Any]:
    return replace(call, params={**call.params, "limit": 100, **after}, parse=lambda data: data["data"])


class Client(Connection):
    """A client that blocks. Threads may share it; close it, or use it in a `with`."""

    def _open(self) -> None:
        self._http = httpx.Client(**self._options)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        attempts = Attempts(call, self._retry_seconds)
        while True:
            try:
                answer = self._http.request(**self._arguments(call))
                if answer.is_success:
                    return call.result(answer)
                pause = attempts.refused(answer)
            except httpx.TransportError as error:
                pause = attempts.failed(error)
            time.sleep(pause)

    @_blocking
    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        safe: bool | None = None,
    ) -> Call[Any]:
        """Send any request, and return the JSON of the answer.

        `safe` says that it does no harm to do it twice, so that it is sent again when its answer is lost. By
        default that holds for GET, PUT and DELETE, and for what has an `Idempotency-Key`.
        """
        headers = headers or {}
        if safe is None:
            keyed = any(name.lower() == "idempotency-key" for name in headers)
            safe = keyed or method.upper() in ("GET", "HEAD", "PUT", "DELETE")
        body = None if json is None else send(method, json).body
        return Call(method, path, body, params or {}, headers, safe)

    # Topics

    @_blocking
    def create_topic(
        self, id: str, *, message_retention_seconds: int | None = None, index_ordering_keys: bool | None = None
    ) -> Call[Topic]:
        """Create a topic, which keeps its messages for replay so many seconds, by default as long as the server
        does; and finds those of an ordering key at once, if it is to index them."""
        body = without_none(
            id=id, message_retention_seconds=message_retention_seconds, index_ordering_keys=index_ordering_keys
        )
        return send("POST", body, "topics", safe=False)

    @_blocking
    def get_topic(self, id: str) -> Call[Topic]:
        """The topic; NotFound if there is none."""
        return Call("GET", path_of("topics", id))

    @_paged
    def list_topics(self) -> Call[Topic]:
        """All topics, by id."""
        return Call("GET", "/topics")

    @_blocking
    def update_topic(self, id: str, *, message_retention_seconds: int | None) -> Call[Topic]:
        """Change for how many seconds the topic keeps its messages; None for not at all."""
        return send("PATCH", {"message_retention_seconds": message_retention_seconds}, "topics", id)

    @_blocking
    def delete_topic(self, id: str) -> Call[None]:
        """Delete a topic, with all its subscriptions and messages."""
        return Call("DELETE", path_of("topics", id))

    # Subscriptions

    @_blocking
    def create_subscription(
        self, id: str, topic_id: str, *, start_from: datetime | None = None, **settings: Unpack[SubscriptionSettings]
    ) -> Call[Subscription]:
        """Create a subscription. It gets what is published from now on, or what was kept since `start_from`."""
        start = {"start_from": wire.moment(start_from)} if start_from else {}
        return send("POST", {"id": id, "topic_id": topic_id, **start, **settings}, "subscriptions", safe=False)

    @_blocking
    def get_subscription(self, id: str) -> Call[Subscription]:
        """The subscription; NotFound if there is none."""
        return Call("GET", path_of("subscriptions", id))

    @_paged
    def list_subscriptions(self, topic_id: str | None = None) -> Call[Subscription]:
        """All subscriptions, or those of a topic, by id."""
        return Call("GET", "/subscriptions", params=without_none(topic_id=topic_id))

    @_blocking
    def update_subscription(self, id: str, **settings: Unpack[SubscriptionSettings]) -> Call[Subscription]:
        """Change the settings that are given; None takes one back."""
        return send("PATCH", settings, "subscriptions", id)

    @_blocking
    def delete_subscription(self, id: str) -> Call[None]:
        """Delete a subscription, with what it has not settled and its dead letters."""
        return Call("DELETE", path_of("subscriptions", id))

    @_blocking
    def subscription_metrics(self, id: str) -> Call[dict[str, Any]]:
        """How many messages are `available`, `delivered`, `scheduled`, `acked`, `dlq`, ..."""
        return Call("GET", path_of("subscriptions", id, "metrics"))

    # Publishing

    @_blocking
    def publish(self, topic: str, payload: dict[str, Any], **options: Unpack[PublishOptions]) -> Call[str]:
        """Publish one message, and return its id.

        Without an `idempotency_key` it is not sent again when its answer is lost: that raises NoAnswer.
        """
        encoded = wire.encode({"payload": payload, **options})
        safe = bool(options.get("idempotency_key"))
        return wire.publish(topic, [encoded], None, safe, lambda data: data["message_ids"][0])

    @_blocking
    def publish_messages(
        self, topic: str, messages: Sequence[OutgoingMessage], *, idempotency_key: str | None = None
    ) -> Call[Published]:
        """Publish 1 to 1000 messages, all or none; only once under a key, or if each has one of its own."""
        safe = bool(idempotency_key) or all(message.get("idempotency_key") for message in messages)
        encoded = [wire.encode(message) for message in messages]
        return wire.publish(topic, encoded, idempotency_key, safe, lambda data: wire.build(Published, data))

    def publisher(self, topic: str, **options: Unpack[PublisherOptions]) -> Publisher:
        """What gathers messages and publishes many in one request; see `Publisher`."""
        return Publisher(self, topic, **options)

    # Consuming

    @_blocking
    def pull(
        self,
        subscription: str,
        max_messages: int = 10,
        *,
        wait_seconds: int = 0,
        ack_deadline_seconds: int | None = None,
        auto_ack: bool = False,
        only: str | None = None,
        consumer_id: str | None = None,
    ) -> Call[list[Message]]:
        """Lease up to `max_messages`, 1 to 1000, until their ack deadline.

        wait_seconds            how long to wait while there is none, 0 to 30
        ack_deadline_seconds    how long the leases last, 1 to 43200; by default as the subscription says
        auto_ack                at most once: what is returned is acked already
        only                    `new` for what was never delivered, `unseen` for what this consumer never got
        consumer_id             who holds the leases; by default host and process

        A lost answer leaves leases that end by themselves, so it is asked again; with `auto_ack` it takes its
        messages with it: that raises NoAnswer.
        """
        body = without_none(ack_deadline_seconds=ack_deadline_seconds, only=only)
        body.update(consumer_id=consumer_id or wire.default_consumer_id())
        body.update(max_messages=max_messages, wait_seconds=wait_seconds, auto_ack=auto_ack)
        return wire.pull(subscription, body, wire.messages_of)

    @_blocking
    def ack(self, message: Message) -> Call[str]:
        """Done for good. The status is `acked`, or `lease_lost` if it was settled or delivered again."""
        return wire.settle_one(message, "acks")

    @_blocking
    def nack(self, message: Message, *, delay_seconds: int | None = None, reason: str | None = None) -> Call[str]:
        """Give it back, to be delivered after so many seconds, by default after the backoff.

        The status is `nacked`, `dead_lettered` when its attempts are spent, or `lease_lost`.
        """
        return wire.settle_one(message, "nacks", delay_seconds=delay_seconds, reason=reason)

    @_blocking
    def reject(self, message: Message, *, reason: str | None = None) -> Call[str]:
        """Make it a dead letter at once. The status is `dead_lettered` or `lease_lost`."""
        return wire.settle_one(message, "rejects", reason=reason)

    @_blocking
    def extend(self, message: Message, seconds: int) -> Call[str]:
        """Move its ack deadline to 1 to 43200 seconds from now. The status is `extended` or `lease_lost`."""
        return wire.settle_one(message, "extends", seconds=seconds)

    @_blocking
    def settle(
        self,
        subscription: str,
        *,
        acks: Iterable[Message | str] = (),
        nacks: Iterable[Nack] = (),
        rejects: Iterable[Reject] = (),
        extends: Iterable[Extend] = (),
    ) -> Call[list[SettleResult]]:
        """Settle up to 1000 deliveries in one commit. Each has a result: acks, nacks, rejects, extends.

        Sent again because an answer was lost, it says `lease_lost` of what the first one did.
        """
        body = {
            "acks": [ack.receipt if isinstance(ack, Message) else ack for ack in acks],
            "nacks": [wire.reasoned(nack) for nack in nacks],
            "rejects": [wire.reasoned(reject) for reject in rejects],
            "extends": list(extends),
        }
        return send("POST", body, "subscriptions", subscription, "settle", parse=wire.results_of)

    def worker(
        self, subscription: str, handler: Callable[[Message], object], **options: Unpack[WorkerOptions]
    ) -> Worker:
        """What pulls messages and gives each to `handler` in a thread; see `Worker`."""
        return Worker(AsyncClient._like(self), subscription, handler, **options)

    # Dead letters

    @_paged
    def list_dead_letters(self, subscription: str) -> Call[DeadLetter]:
        """All dead letters, the oldest first."""
        path = path_of("subscriptions", subscription, "dlq")
        return Call("GET", path, parse=lambda data: wire.build(DeadLetter, data))

    @_blocking
    def reprocess_dead_letters(
        self,
        subscription: str,
        *,
        filter: dict[str, Any] | None = None,
        limit: int | None = None,
        per_second: int | None = None,
    ) -> Call[tuple[int, int]]:
        """Bring dead letters back, all or those that match: how many came back, and how many are left.

        limit         most of them, the oldest first; 10,000 by default and at most
        per_second    hand out no more than so many a second
        """
        which = {"all": True} if filter is None else {"filter": filter}
        body = without_none(**which, limit=limit, per_second=per_second)
        parse = operator.itemgetter("reprocessed", "remaining")
        return send("POST", body, "subscriptions", subscription, "dlq", "reprocess", safe=False, parse=parse)

    @_blocking
    def purge_dead_letters(self, subscription: str) -> Call[int]:
        """Delete all dead letters for good; how many there were."""
        path = path_of("subscriptions", subscription, "dlq")
        return Call("DELETE", path, parse=operator.itemgetter("purged"))


def _awaited(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    build: Any = method.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(build)
    async def awaited(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        call: Call[T] = build(self, *args, **kwargs)
        return await self._run(call)

    return awaited


def _async_paged(
    method: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    build: Any = method.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(build)
    async def paged(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        call = build(self, *args, **kwargs)
        after: dict[str, str] = {}
        while page := await self._run(_page(call, after)):
            for entry in page:
                yield call.parse(entry)
            after = {"after": page[-1]["id"]}

    return paged


class AsyncClient(Connection):
    """The same for asyncio: its methods are those of `Client`, to be awaited; lists are for `async for`."""

    def _open(self) -> None:
        self._http = httpx.AsyncClient(**self._options)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        attempts = Attempts(call, self._retry_seconds)
        while True:
            try:
                answer = await self._http.request(**self._arguments(call))
                if answer.is_success:
                    return call.result(answer)
                pause = attempts.refused(answer)
            except httpx.TransportError as error:
                pause = attempts.failed(error)
            await asyncio.sleep(pause)

    def publisher(self, topic: str, **options: Unpack[PublisherOptions]) -> AsyncPublisher:
        """What gathers messages and publishes many in one request; see `AsyncPublisher`."""
        return AsyncPublisher(Client._like(self), topic, **options)

    def worker(
        self, subscription: str, handler: Callable[[Message], Awaitable[object]], **options: Unpack[WorkerOptions]
    ) -> AsyncWorker:
        """What pulls messages and gives each to `handler` in a task; see `AsyncWorker`."""
        return AsyncWorker(self, subscription, handler, **options)

    request = _awaited(Client.request)
    create_topic = _awaited(Client.create_topic)
    get_topic = _awaited(Client.get_topic)
    list_topics = _async_paged(Client.list_topics)
    update_topic = _awaited(Client.update_topic)
    delete_topic = _awaited(Client.delete_topic)
    create_subscription = _awaited(Client.create_subscription)
    get_subscription = _awaited(Client.get_subscription)
    list_subscriptions = _async_paged(Client.list_subscriptions)
    update_subscription = _awaited(Client.update_subscription)
    delete_subscription = _awaited(Client.delete_subscription)
    subscription_metrics = _awaited(Client.subscription_metrics)
    publish = _awaited(Client.publish)
    publish_messages = _awaited(Client.publish_messages)
    pull = _awaited(Client.pull)
    ack = _awaited(Client.ack)
    nack = _awaited(Client.nack)
    reject = _awaited(Client.reject)
    extend = _awaited(Client.extend)
    settle = _awaited(Client.settle)
    list_dead_letters = _async_paged(Client.list_dead_letters)
    reprocess_dead_letters = _awaited(Client.reprocess_dead_letters)
    purge_dead_letters = _awaited(Client.purge_dead_letters)
