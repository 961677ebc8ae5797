"""Publishers: they gather messages and publish many in one request, in the order of the calls."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import uuid
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from . import messages as wire
from .errors import ApiError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import Client
    from .messages import PublishOptions


class PublisherOptions(TypedDict, total=False):
    """Options of publishers."""

    batch_messages: int  #: most messages of a request, 1 to 1000; 500 by default
    batch_bytes: int  #: most bytes of a request, if it has more than one message; 1,000,000 by default
    batch_seconds: float  #: how long a message waits for others; 0.01 by default
    max_waiting_bytes: int  #: `publish` waits while as much is not published; 10,000,000 by default


class _Entry(NamedTuple):
    data: bytes
    future: Future[str]
    since: float


class Publisher:
    """Gathers messages and publishes them in the order of the calls, in a thread of its own.

    A request has an idempotency key, so it is tried again without publishing anything twice, for the
    `retry_seconds` of the client; then its futures fail, and later messages are tried. Use it in a `with`,
    or close it: what waits is published then.

        with client.publisher("orders") as publisher:
            future = publisher.publish({"order_id": 1}, ordering_key="customer-7")
        print(future.result())  # the id of the message
    """

    def __init__(self, client: Client, topic: str, **options: Unpack[PublisherOptions]) -> None:
        self._client = client
        self._topic = topic
        self._batch_messages = options.get("batch_messages", 500)
        self._batch_bytes = options.get("batch_bytes", 1_000_000)
        self._batch_seconds = options.get("batch_seconds", 0.01)
        self._max_waiting_bytes = options.get("max_waiting_bytes", 10_000_000)
        self._queue: deque[_Entry] = deque()
        self._queue_bytes = 0
        self._waiting_bytes = 0  # of the queue and of what is being sent
        self._added = self._done = 0  # messages; those that failed are done, too
        self._flush_to = 0  # messages up to this number do not wait for others
        self._error: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()  # guards all of this
        self._thread = threading.Thread(target=self._work, name=f"publisher of {topic}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def publish(self, payload: dict[str, Any], **options: Unpack[PublishOptions]) -> Future[str]:
        """Publish a message soon; a future of its id. Waits while too much waits to be published.

        What the server refuses is the exception of its own message's future only. Callbacks of futures run
        in the publisher's thread, so they must not block.
        """
        data = wire.encode({"payload": payload, **options})
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()  # it may be on its way, so there is no cancelling
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                raise RuntimeError("the publisher is closed")
            self._queue.append(_Entry(data, future, time.monotonic()))
            self._queue_bytes += len(data)
            self._waiting_bytes += len(data)
            self._added += 1
            if len(self._queue) == 1 or self._due_in() == 0:
                self._changed.notify_all()
        return future

    def flush(self) -> None:
        """Wait until all that was given is published; raises the first error since the last flush."""
        with self._changed:
            target = self._flush_to = self._added
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._done >= target)
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Publish what waits, and end. Raises the first error since the last flush."""
        with self._changed:
            self._closed = True
        atexit.unregister(self.close)
        self.flush()
        self._thread.join()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:  # else it would hide the first one
                raise

    def _has_room(self) -> bool:
        return self._waiting_bytes < self._max_waiting_bytes

    def _due_in(self) -> float | None:
        """Seconds until a batch is to be sent; None while there is nothing."""
        if not self._queue:
            return None
        is_full = len(self._queue) >= self._batch_messages or self._queue_bytes >= self._batch_bytes
        if is_full or self._flush_to > self._done or self._closed:
            return 0
        return max(0.0, self._queue[0].since + self._batch_seconds - time.monotonic())

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        room = self._batch_bytes
        while self._queue and len(batch) < self._batch_messages:
            size = len(self._queue[0].data)
            if batch and size > room:
                break
            room -= size
            self._queue_bytes -= size
            batch.append(self._queue.popleft())
        return batch

    def _work(self) -> None:
        while True:
            with self._changed:
                while (due := self._due_in()) != 0:
                    if self._closed:
                        return
                    self._changed.wait(due)
                batch = self._take()
            self._send(batch)

    def _send(self, batch: list[_Entry]) -> None:
        # the key lets the client try it again: it is published once
        data, key = [entry.data for entry in batch], uuid.uuid4().hex
        call = wire.publish(self._topic, data, key, True, lambda answer: answer["message_ids"])
        ids, error = [], None
        try:
            ids = self._client._run(call)
        except Exception as failure:
            error = failure
        if isinstance(error, ApiError) and error.status in (413, 422) and len(batch) > 1:
            # some message is to blame, for which the others are not refused
            middle = len(batch) // 2
            self._send(batch[:middle])
            self._send(batch[middle:])
            return
        for position, entry in enumerate(batch):
            if error is None:
                entry.future.set_result(ids[position])
            else:
                entry.future.set_exception(error)
        with self._changed:
            self._done += len(batch)
            self._waiting_bytes -= sum(len(entry.data) for entry in batch)
            self._error = self._error or error
            self._changed.notify_all()


class AsyncPublisher:
    """The same for asyncio: use it in an `async with`, or close it.

    async with client.publisher("orders") as publisher:
        future = await publisher.publish({"order_id": 1})  # waits while too much waits already
        print(await future)  # the id of the message
    """

    def __init__(self, client: Client, topic: str, **options: Unpack[PublisherOptions]) -> None:
        self._client = client
        self._publisher = Publisher(client, topic, **options)

    async def publish(self, payload: dict[str, Any], **options: Unpack[PublishOptions]) -> asyncio.Future[str]:
        """Publish a message soon; a future of its id. Waits while too much waits to be published."""
        while not self._publisher._has_room():  # noqa: ASYNC110 - it is a thread that makes room
            await asyncio.sleep(0.005)
        return asyncio.wrap_future(self._publisher.publish(payload, **options))

    async def flush(self) -> None:
        """Wait until all that was given is published; raises the first error since the last flush."""
        await asyncio.to_thread(self._publisher.flush)

    async def close(self) -> None:
        """Publish what waits, and end. Raises the first error since the last flush."""
        try:
            await asyncio.to_thread(self._publisher.close)
        finally:
            self._client.close()

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.close()
        except Exception:
            if kind is None:  # else it would hide the first one
                raise
