"""Workers: they pull messages, keep the leases while handlers run, and settle."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import queue
import signal
import threading
import time
import traceback
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, TypedDict

from . import messages as wire
from .errors import ApiError, FastpubsubError, Unavailable
from .messages import Message
from .transport import log

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .client import AsyncClient

MAX_SETTLED = 1000  # deliveries of one request
GATHER_SECONDS = 0.01  # how long a settlement waits for others, or for the next pull


class Reject(Exception):
    """A handler raises it for a message that no retry will help: it becomes a dead letter at once."""


class Retry(Exception):
    """A handler raises it to get the message again, after `delay_seconds` or else the backoff."""

    def __init__(self, delay_seconds: float | None = None, reason: str | None = None) -> None:
        super().__init__(delay_seconds, reason)
        self.delay_seconds = delay_seconds
        self.reason = reason


class WorkerOptions(TypedDict, total=False):
    """Options of workers."""

    concurrency: int  #: handlers at a time, 1 to 1000; 10 by default
    #: how long a lease is, 1 to 43200 seconds; 30 by default. It is extended while the handler runs, however
    #: long: this is how soon somebody else gets what a worker that died had.
    ack_deadline_seconds: int
    stop_seconds: float  #: how long handlers may go on after a stop; 20 by default
    consumer_id: str  #: who holds the leases; by default host and process


@dataclass
class _Lease:
    message: Message
    task: asyncio.Task[None]
    kept_at: float  # when it last began anew, or earlier


class AsyncWorker:
    """Pulls messages and gives each to `handler`, `concurrency` at a time, until it is stopped.

    When the handler returns, the message is acked. When it raises, the message is nacked with the exception
    as its reason and comes again after the backoff; `Retry` and `Reject` say otherwise. While the handler
    runs, its lease is extended; a handler whose lease was lost all the same, so that somebody else may have
    the message, is cancelled. No more is pulled than there are handlers free, so nothing waits in here.

    On SIGTERM, SIGINT or `stop`, it pulls no more, lets handlers finish for `stop_seconds`, cancels those
    that have not, gives back their messages, and returns. A second signal cancels at once.

    A handler must not block the loop: that would stop the extending of leases, too.
    """

    _cancels_lost = True  # a thread cannot be cancelled, and needs its slot until it is done

    def __init__(
        self,
        client: AsyncClient,
        subscription: str,
        handler: Callable[[Message], Awaitable[object]],
        **options: Unpack[WorkerOptions],
    ) -> None:
        self._client = client
        self._subscription = subscription
        self._handler = handler
        self._concurrency = options.get("concurrency", 10)
        self._deadline = options.get("ack_deadline_seconds", 30)
        self._stop_seconds = options.get("stop_seconds", 20.0)
        self._consumer_id = options.get("consumer_id") or wire.default_consumer_id()
        if not 1 <= self._concurrency <= MAX_SETTLED:
            raise ValueError(f"concurrency: 1 to {MAX_SETTLED}")
        self._leases: dict[str, _Lease] = {}  # of messages whose handler runs, by receipt
        self._outbox: list[tuple[str, Any]] = []  # what to settle: (list of the request, its element)
        self._stops = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin to stop; a second time, do not wait for handlers. Any thread may call it."""
        self._stops += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._notice_stop)

    def _notice_stop(self) -> None:
        for number, future in enumerate((self._stopped, self._hurried)):
            if self._stops > number and not future.done():
                future.set_result(None)

    async def run(self, *, handle_signals: bool = True) -> None:
        """Work until it is stopped. Raises when the server refuses to go on, such as NotFound or Forbidden.

        `handle_signals` lets SIGTERM and SIGINT stop it, in the main thread, while it runs.
        """
        self._loop = asyncio.get_running_loop()
        self._stopped, self._hurried = self._loop.create_future(), self._loop.create_future()
        self._freed, self._filled, self._settling = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        self._notice_stop()  # it may have come first
        helpers = [self._loop.create_task(work()) for work in (self._keep_leases, self._settle_finished)]
        for helper in helpers:
            helper.add_done_callback(lambda _: self.stop())  # without it there is no use in going on
        with _signals(self.stop) if handle_signals else contextlib.nullcontext():
            try:
                await self._pull()
            finally:
                await self._finish()
                for helper in helpers:
                    helper.cancel()
                for ended in await asyncio.gather(*helpers, return_exceptions=True):
                    if isinstance(ended, Exception):
                        raise ended

    async def _pull(self) -> None:
        while not self._stopped.done():
            free = self._concurrency - len(self._leases)
            if not free:
                self._freed.clear()
                await self._unless_stopped(self._freed.wait())
                continue
            settled, messages = self._take_outbox(), None
            try:
                messages = await self._unless_stopped(self._pull_once(free, settled))
            except FastpubsubError as error:
                if _is_final(error):
                    raise
                log.warning("%s; pulls again", error)
                await self._unless_stopped(asyncio.sleep(1))
            finally:
                if messages is None:
                    self._outbox[:0] = settled  # whether it was settled is not known, and again does no harm
            for message in messages or []:
                task = asyncio.ensure_future(self._handle(message))
                self._leases[message.receipt] = _Lease(message, task, time.monotonic())

    async def _pull_once(self, free: int, settled: list[tuple[str, Any]]) -> list[Message]:
        body = {
            "consumer_id": self._consumer_id,
            "max_messages": free,
            "wait_seconds": 30,
            "ack_deadline_seconds": self._deadline,
            "auto_ack": False,
            **({"settle": _lists(settled)} if settled else {}),
        }
        return await self._client._run(wire.pull(self._subscription, body, wire.messages_of))

    async def _unless_stopped(self, work: Awaitable[Any]) -> Any:
        """What the work returns; None when the stop comes first.

        A pull that is cancelled closes its connection, by which the server takes back what it may have leased
        for it at that moment, without counting the delivery.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _handle(self, message: Message) -> None:
        receipt = message.receipt
        try:
            await self._handler(message)
            outcome: tuple[str, Any] = ("acks", receipt)
        except Reject as error:
            outcome = "rejects", wire.reasoned({"receipt": receipt, "reason": str(error) or None})
        except Retry as error:
            delay = error.delay_seconds
            if delay is not None:  # as the server takes it: what it refuses would hold up what others settle
                delay = min(max(math.ceil(delay), 0), 43200)
            told = {"receipt": receipt, "delay_seconds": delay, "reason": error.reason or None}
            outcome = "nacks", wire.reasoned(told)
        except asyncio.CancelledError:
            delay = 0 if self._stopped.done() else None
            told = {"receipt": receipt, "delay_seconds": delay, "reason": "the handler was cancelled"}
            outcome = "nacks", wire.reasoned(told)
        except Exception as error:
            log.warning("the handler failed with message %s", message.id, exc_info=error)
            reason = traceback.format_exception_only(type(error), error)[-1].strip()
            outcome = "nacks", wire.reasoned({"receipt": receipt, "reason": reason})
        self._leases.pop(receipt)
        self._freed.set()
        # even if the lease was lost: the server knows whether somebody else has the message
        self._outbox.append(outcome)
        self._filled.set()

    async def _keep_leases(self) -> None:
        period = self._deadline / 4  # so there is time for two more tries
        pause = period
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            held = (lease.message for lease in self._leases.values() if now - lease.kept_at >= period)
            due = [message.receipt for message in held if not message.lease_lost]
            if not due:
                continue
            extends = [wire.Extend(receipt=receipt, seconds=self._deadline) for receipt in due]
            try:
                asked = self._client.settle(self._subscription, extends=extends)
                results = await asyncio.wait_for(asked, period)
            except (FastpubsubError, asyncio.TimeoutError) as error:
                log.warning("leases were not extended, trying again: %r", error)
                pause = period / 4
                continue
            pause = period
            for result in results:
                lease = self._leases.get(result.receipt)  # None when its handler returned meanwhile
                if lease is None:
                    continue
                lease.kept_at = now
                if result.status == "lease_lost":
                    log.warning("the lease of message %s was lost: it may be delivered again", lease.message.id)
                    lease.message.lease_lost = True
                    if self._cancels_lost:
                        lease.task.cancel()

    async def _settle_finished(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            await asyncio.sleep(GATHER_SECONDS)
            await self._settle_outbox()

    async def _settle_outbox(self) -> None:
        async with self._settling:  # who stops waits here for what is being settled
            while settled := self._take_outbox():
                try:
                    await self._client.settle(self._subscription, **_lists(settled))
                except FastpubsubError as error:
                    if _is_final(error):
                        log.error("not settled, so they will be delivered again: %s", error)
                        return
                    log.warning("%s; settles again", error)
                    self._outbox[:0] = settled
                    await asyncio.sleep(1)

    def _take_outbox(self) -> list[tuple[str, Any]]:
        taken, self._outbox = self._outbox[:MAX_SETTLED], self._outbox[MAX_SETTLED:]
        return taken

    async def _finish(self) -> None:
        """Let handlers finish, cancel those that do not in time, and settle."""
        tasks = [lease.task for lease in self._leases.values()]
        if tasks:
            all_done = asyncio.gather(*tasks, return_exceptions=True)
            waited = {all_done, self._hurried}
            await asyncio.wait(waited, timeout=self._stop_seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)
        # the leases of what cannot be settled now end by themselves
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._settle_outbox(), 10)


class Worker:
    """The same for handlers that block: each runs in one of `concurrency` threads.

        def handle(message):
            print(message.payload)

        client.worker("resize", handle, concurrency=4).run()

    It works as `AsyncWorker` says, but nobody can cancel a thread: a handler that takes long may look at
    `message.lease_lost`, and threads that are not done after a stop end with the process.
    """

    def __init__(
        self,
        client: AsyncClient,
        subscription: str,
        handler: Callable[[Message], object],
        **options: Unpack[WorkerOptions],
    ) -> None:
        if inspect.iscoroutinefunction(handler):
            raise TypeError("a handler that is a coroutine is for AsyncClient")
        self._client = client
        self._handler = handler
        self._jobs: queue.SimpleQueue[tuple[Message, asyncio.Future[BaseException | None]] | None]
        self._jobs = queue.SimpleQueue()
        self._worker = AsyncWorker(client, subscription, self._in_thread, **options)
        self._worker._cancels_lost = False

    def stop(self) -> None:
        """Begin to stop; a second time, do not wait for handlers. Any thread may call it."""
        self._worker.stop()

    def run(self, *, handle_signals: bool = True) -> None:
        """Work until it is stopped. Raises when the server refuses to go on, such as NotFound or Forbidden.

        `handle_signals` lets SIGTERM and SIGINT stop it, in the main thread, while it runs.
        """
        asyncio.run(self._run(handle_signals))

    async def _run(self, handle_signals: bool) -> None:
        for _ in range(self._worker._concurrency):
            threading.Thread(target=self._work, daemon=True).start()
        try:
            await self._worker.run(handle_signals=handle_signals)
        finally:
            for _ in range(self._worker._concurrency):
                self._jobs.put(None)
            await self._client.close()

    async def _in_thread(self, message: Message) -> None:
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._jobs.put((message, done))
        error = await done
        if error is not None:
            raise error if isinstance(error, Exception) else RuntimeError(repr(error))

    def _work(self) -> None:
        while job := self._jobs.get():
            message, done = job
            error: BaseException | None = None
            try:
                result = self._handler(message)
                if inspect.iscoroutine(result):
                    result.close()  # else it would be acked, with nothing done
                    raise TypeError("the handler returned a coroutine, which is for AsyncClient")
            except BaseException as failure:
                error = failure
            with contextlib.suppress(RuntimeError):  # the loop has ended
                done.get_loop().call_soon_threadsafe(_set, done, error)


def _set(done: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not done.done():
        done.set_result(error)


def _is_final(error: FastpubsubError) -> bool:
    return isinstance(error, ApiError) and error.status < 500 and not isinstance(error, Unavailable)  # noqa: PLR2004


def _lists(settled: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    lists: dict[str, list[Any]] = {}
    for verb, element in settled:
        lists.setdefault(verb, []).append(element)
    return lists


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [(number, signal.signal(number, lambda *_: stop())) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
