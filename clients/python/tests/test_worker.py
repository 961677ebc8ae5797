"""Workers: leases that are kept, outcomes that are settled, and how they stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import pytest
from conftest import Server

from fastpubsub_client import AsyncClient, Client, Message, NotFound, Reject, Retry


@contextmanager
def at_work(client: Client, subscription: str, handler: Callable[[Message], Any], **options: Any) -> Iterator[Any]:
    """A worker in a thread, for the time of a block."""
    worker = client.worker(subscription, handler, **options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, as soon as it gives something."""
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def metrics(client: Client, subscription: str) -> Callable[[], dict[str, Any]]:
    return lambda: client.subscription_metrics(subscription)


def test_what_is_handled_is_acked(client: Client, topic: str, subscription: str) -> None:
    client.publish_messages(topic, [{"payload": {"n": n}} for n in range(100)])
    seen: list[int] = []

    with at_work(client, subscription, lambda message: seen.append(message.payload["n"]), concurrency=7):
        until(lambda: len(seen) == 100)
    told = client.subscription_metrics(subscription)

    assert sorted(seen) == list(range(100))
    assert (told["acked"], told["delivered"], told["totals"]["delivered"]) == (100, 0, 100)


def test_so_many_run_at_a_time(client: Client, topic: str, subscription: str) -> None:
    client.publish_messages(topic, [{"payload": {}} for _ in range(9)])
    together = threading.Barrier(3)  # broken unless three meet

    with at_work(client, subscription, lambda _: together.wait(30), concurrency=3):
        until(lambda: client.subscription_metrics(subscription)["acked"] == 9)


def test_it_pulls_no_more_than_it_begins(client: Client, topic: str, subscription: str) -> None:
    client.publish_messages(topic, [{"payload": {}} for _ in range(9)])
    begun, go = threading.Semaphore(0), threading.Event()

    def handle(_: Message) -> None:
        begun.release()
        go.wait(30)

    with at_work(client, subscription, handle, concurrency=2):
        assert begun.acquire(timeout=30) and begun.acquire(timeout=30)
        told = client.subscription_metrics(subscription)
        assert (told["delivered"], told["available"]) == (2, 7)
        go.set()


def test_failures_are_nacked_with_what_was_raised(client: Client, topic: str, subscription: str) -> None:
    client.update_subscription(subscription, max_delivery_attempts=1)
    client.publish_messages(topic, [{"payload": {"n": n}} for n in range(5)])
    errors = [ValueError("no \0 such \ud800 thing" + "x" * 2000), StopIteration(), SystemExit(3), Reject("broken")]

    def handle(message: Message) -> None:
        if message.payload["n"] < 4:
            raise errors[message.payload["n"]]

    with at_work(client, subscription, handle):
        until(lambda: client.subscription_metrics(subscription)["dlq"] == 4)
        until(lambda: client.subscription_metrics(subscription)["acked"] == 1)

    letters = sorted(client.list_dead_letters(subscription), key=lambda letter: letter.payload["n"])
    assert [letter.reason for letter in letters] == ["attempts"] * 3 + ["rejected"]
    told = [letter.last_error for letter in letters]
    assert told[0] == ("ValueError: no ? such ? thing" + "x" * 2000)[:1024]
    assert "StopIteration" in str(told[1]) and "SystemExit(3)" in str(told[2])
    assert told[3] == "broken"


def test_a_retry_comes_after_its_delay(client: Client, topic: str, subscription: str) -> None:
    client.update_subscription(subscription, backoff_min_seconds=300)
    client.publish(topic, {})
    attempts: list[int] = []

    def handle(message: Message) -> None:
        attempts.append(message.delivery_attempts)
        if len(attempts) == 1:
            raise Retry(delay_seconds=0.5, reason="not yet")
        if len(attempts) == 2:
            raise Retry(delay_seconds=-1)

    with at_work(client, subscription, handle):
        until(lambda: client.subscription_metrics(subscription)["acked"] == 1)
    assert attempts == [1, 2, 3]
    assert client.subscription_metrics(subscription)["totals"]["nacked"] == 2


def test_a_handler_may_take_longer_than_the_ack_deadline(client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {})
    begun = threading.Event()

    def handle(message: Message) -> None:
        begun.set()
        time.sleep(3)
        assert not message.lease_lost

    with at_work(client, subscription, handle, ack_deadline_seconds=1):
        assert begun.wait(30)
        assert client.pull(subscription, wait_seconds=2) == []
        until(lambda: client.subscription_metrics(subscription)["acked"] == 1)
    totals = client.subscription_metrics(subscription)["totals"]
    assert (totals["delivered"], totals["nacked"]) == (1, 0)
    assert totals["extended"] >= 3


def test_who_lost_the_lease_is_told(client: Client, topic: str, subscription: str) -> None:
    client.publish_messages(topic, [{"payload": {"n": 1}}, {"payload": {"n": 2}}])
    delivered: list[int] = []

    def handle(message: Message) -> None:
        if message.payload["n"] == 1:
            # by its id it is acked whoever has it
            client.request("POST", f"/subscriptions/{subscription}/acks", json=[message.id])
            until(lambda: message.lease_lost)
            time.sleep(0.3)  # nobody takes its place while it runs
            delivered.append(client.subscription_metrics(subscription)["delivered"])

    with at_work(client, subscription, handle, concurrency=1, ack_deadline_seconds=1):
        until(lambda: client.subscription_metrics(subscription)["acked"] == 2)
    assert delivered == [0]


def test_asyncio_cancels_who_lost_the_lease(url: str, client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {})
    ended: list[str] = []
    worker: Any = None

    async def handle(message: Message) -> None:
        await asyncio.to_thread(client.request, "POST", f"/subscriptions/{subscription}/acks", json=[message.id])
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled" if message.lease_lost else "stopped")
            worker.stop()
            raise

    async def main() -> None:
        nonlocal worker
        async with AsyncClient(url) as client:
            worker = client.worker(subscription, handle, ack_deadline_seconds=1)
            await worker.run()

    asyncio.run(main())
    assert ended == ["cancelled"]


def test_asyncio_handles_and_gives_back_what_is_not_done_in_time(
    url: str, client: Client, topic: str, subscription: str
) -> None:
    client.publish_messages(topic, [{"payload": {"n": n}} for n in range(20)])
    ended: list[Any] = []

    async def handle(message: Message) -> None:
        try:
            if message.payload["n"] == 7:
                await asyncio.sleep(60)
            ended.append(message.payload["n"])
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        async with AsyncClient(url) as client:
            worker = client.worker(subscription, handle, concurrency=5, stop_seconds=0.1)
            running = asyncio.ensure_future(worker.run())
            while len(ended) < 19:
                await asyncio.sleep(0.01)
            worker.stop()
            await running

    asyncio.run(main())
    assert ended[19:] == ["cancelled"] and sorted(ended[:19]) == [n for n in range(20) if n != 7]
    [message] = client.pull(subscription)  # at once
    assert (message.payload, message.delivery_attempts) == ({"n": 7}, 2)
    assert client.subscription_metrics(subscription)["acked"] == 19


def test_a_worker_that_waits_stops_at_once_and_takes_nothing_with_it(
    client: Client, topic: str, subscription: str
) -> None:
    for _ in range(5):
        with at_work(client, subscription, lambda _: None):
            time.sleep(0.2)  # it waits for messages
            before = time.monotonic()
        assert time.monotonic() - before < 5
        client.publish(topic, {})
        [message] = client.pull(subscription, wait_seconds=5)
        assert message.delivery_attempts == 1
        client.ack(message)


def test_a_stop_waits_for_what_is_being_settled(url: str, client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {})

    async def handle(_: Message) -> None: ...

    async def main() -> None:
        async with AsyncClient(url) as client:
            worker = client.worker(subscription, handle)
            settle, is_settling = client.settle, asyncio.Event()

            async def slow(*arguments: Any, **lists: Any) -> Any:
                is_settling.set()
                await asyncio.sleep(0.3)
                return await settle(*arguments, **lists)

            client.settle = slow  # type: ignore[method-assign]
            running = asyncio.ensure_future(worker.run())
            await is_settling.wait()
            worker.stop()
            await running

    asyncio.run(main())
    assert client.subscription_metrics(subscription)["acked"] == 1


def test_a_worker_whose_leases_are_not_kept_does_not_go_on(url: str, topic: str, subscription: str) -> None:
    async def handle(_: Message) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with AsyncClient(url) as client:
            worker = client.worker(subscription, handle, ack_deadline_seconds=1, stop_seconds=0)
            client.settle = None  # type: ignore[method-assign, assignment]
            await client.publish(topic, {})
            await worker.run()

    with pytest.raises(TypeError):
        asyncio.run(main())


def test_a_stop_before_the_run_is_a_stop(client: Client, subscription: str) -> None:
    worker = client.worker(subscription, print)
    worker.stop()
    worker.run()


def test_it_ends_with_the_error_when_there_is_no_use_in_going_on(client: Client) -> None:
    with pytest.raises(NotFound):
        client.worker("nowhere", print).run()


def test_a_coroutine_is_no_handler_for_threads(client: Client, topic: str, subscription: str) -> None:
    async def handle(_: Message) -> None: ...

    with pytest.raises(TypeError, match="AsyncClient"):
        client.worker(subscription, handle)
    with pytest.raises(ValueError, match="concurrency"):
        client.worker(subscription, print, concurrency=0)

    client.update_subscription(subscription, max_delivery_attempts=1)
    client.publish(topic, {})
    with at_work(client, subscription, lambda message: handle(message)):
        until(lambda: client.subscription_metrics(subscription)["dlq"] == 1)


PROGRAM = """
import sys, time
from fastpubsub_client import Client

def handle(message):
    print("begun", flush=True)
    time.sleep(message.payload["takes"])
    print("done", flush=True)

client = Client(sys.argv[1])
client.worker(sys.argv[2], handle, concurrency=2, stop_seconds=float(sys.argv[3])).run()
print("left", flush=True)
"""


@contextmanager
def program(url: str, subscription: str, stop_seconds: float = 30) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, url, subscription, str(stop_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_handlers_finish(
    url: str, client: Client, topic: str, subscription: str, number: signal.Signals
) -> None:
    client.publish(topic, {"takes": 1})
    with program(url, subscription) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        time.sleep(0.3)
        client.publish(topic, {"takes": 0})  # is for somebody else
        assert process.stdout.read() == "done\nleft\n"
        assert process.wait(30) == 0

    told = client.subscription_metrics(subscription)
    assert (told["acked"], told["delivered"], told["available"]) == (1, 0, 1)


def test_a_second_signal_waits_for_nobody(url: str, client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {"takes": 60})
    with program(url, subscription) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        before = time.monotonic()
        assert process.stdout.read() == "left\n"
        assert time.monotonic() - before < 15
        assert process.wait(30) == 0

    [message] = client.pull(subscription, wait_seconds=5)
    assert message.delivery_attempts == 2


def test_a_worker_outlives_its_server(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    seen: list[int] = []
    lock = threading.Lock()

    def handle(message: Message) -> None:
        with lock:
            seen.append(message.payload["n"])
        time.sleep(0.01)

    with Client(server.url) as client:
        client.create_topic("t")
        client.create_subscription("s", "t", ack_deadline_seconds=5)
        client.publish_messages("t", [{"payload": {"n": n}} for n in range(1000)])
        with at_work(client, "s", handle, ack_deadline_seconds=5):
            until(lambda: len(seen) > 300)
            server.kill()
            server.start()
            until(lambda: client.subscription_metrics("s")["acked"] == 1000)
    assert set(seen) == set(range(1000))
