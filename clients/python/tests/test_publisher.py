"""Publishers: what they gather, in which order, and what becomes of failures."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest
from conftest import Server
from fakes import Answer, FakeServer, LosesAnswers

from fastpubsub_client import AsyncClient, Client, InvalidRequest, NoAnswer, NotFound


def published(count: int) -> Answer:
    return Answer(201, {"message_ids": [str(n) for n in range(count)], "duplicates": []})


def sizes(fake: FakeServer) -> list[int]:
    return [len(json.loads(request.body)["messages"]) for request in fake.requests]


def test_messages_arrive_in_order_with_all_they_carry(client: Client, topic: str, subscription: str) -> None:
    with client.publisher(topic, batch_messages=3) as publisher:
        futures = [publisher.publish({"n": n}, attributes={"n": str(n)}, ordering_key="k") for n in range(10)]

    pulled = client.pull(subscription, 100, wait_seconds=5)
    assert [(message.id, message.payload["n"]) for message in pulled] == [
        (future.result(), n) for n, future in enumerate(futures)
    ]
    assert (pulled[7].attributes, pulled[7].ordering_key) == ({"n": "7"}, "k")


def test_a_request_has_as_many_messages_as_it_may() -> None:
    with FakeServer(published(3), published(3), published(1)) as fake, Client(fake.url) as client:
        with client.publisher("t", batch_messages=3, batch_seconds=60) as publisher:
            for n in range(7):
                publisher.publish({"n": n})

        assert sizes(fake) == [3, 3, 1]
        assert len({request.headers["idempotency-key"] for request in fake.requests}) == 3


def test_a_request_has_as_many_bytes_as_it_may_but_one_message_always() -> None:
    with FakeServer(published(2), published(1), published(1)) as fake, Client(fake.url) as client:
        with client.publisher("t", batch_bytes=1000, batch_seconds=60) as publisher:
            for size in (400, 400, 5000, 400):
                publisher.publish({"text": "x" * size})

        assert sizes(fake) == [2, 1, 1]


def test_a_message_does_not_wait_longer_than_it_may() -> None:
    with FakeServer(published(1)) as fake, Client(fake.url) as client:
        publisher = client.publisher("t", batch_seconds=0.2)
        before = time.monotonic()
        assert publisher.publish({}).result(10) == "0"
        assert 0.2 <= time.monotonic() - before < 5
        publisher.close()


def test_flush_waits_until_all_is_published() -> None:
    with FakeServer(published(2)) as fake, Client(fake.url) as client:
        publisher = client.publisher("t", batch_seconds=60)
        futures = [publisher.publish({}), publisher.publish({})]
        publisher.flush()
        assert all(future.done() for future in futures)
        publisher.close()


def test_publish_waits_while_too_much_waits() -> None:
    answer = threading.Event()
    with FakeServer(published(1), published(1), published(1)) as fake, Client(fake.url) as client:
        send = client._run

        def slow(call):  # type: ignore[no-untyped-def]
            answer.wait()
            return send(call)

        client._run = slow  # type: ignore[method-assign]
        with client.publisher("t", batch_messages=1, max_waiting_bytes=30) as publisher:
            publisher.publish({"n": 1})
            publisher.publish({"n": 2})  # together they are more than 30 bytes
            third = threading.Thread(target=publisher.publish, args=({"n": 3},))
            third.start()
            third.join(0.2)
            assert third.is_alive()
            answer.set()
            third.join(10)
            assert not third.is_alive()


def test_only_the_message_that_is_wrong_fails(client: Client, topic: str, subscription: str) -> None:
    with pytest.raises(InvalidRequest), client.publisher(topic, batch_seconds=0.2) as publisher:
        futures = [publisher.publish({"n": n}, priority=10 if n == 3 else None) for n in range(7)]

    with pytest.raises(InvalidRequest) as caught:
        futures.pop(3).result()
    assert caught.value.field == "messages.0.priority"
    pulled = client.pull(subscription, 100, wait_seconds=5)
    assert [message.id for message in pulled] == [future.result() for future in futures]


def test_what_failed_is_never_passed_over_in_silence(client: Client) -> None:
    publisher = client.publisher("nowhere", batch_seconds=60)
    future = publisher.publish({})
    with pytest.raises(NotFound):
        publisher.flush()
    assert isinstance(future.exception(), NotFound)

    publisher.publish({})
    with pytest.raises(NotFound):
        publisher.close()
    with pytest.raises(RuntimeError, match="closed"):
        publisher.publish({})
    with pytest.raises(KeyError), client.publisher("nowhere") as publisher:
        publisher.publish({})
        raise KeyError


def test_payloads_that_are_no_json_are_the_callers_error(client: Client, topic: str) -> None:
    with client.publisher(topic) as publisher, pytest.raises(TypeError):
        publisher.publish({"when": object()})


def test_a_program_that_ends_publishes_what_waits(url: str, client: Client, topic: str, subscription: str) -> None:
    program = f"""
from fastpubsub_client import Client
Client({url!r}).publisher({topic!r}, batch_seconds=60).publish({{"n": 1}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert len(client.pull(subscription, wait_seconds=5)) == 1


def test_asyncio_gathers_too(url: str, client: Client, topic: str, subscription: str) -> None:
    async def main() -> list[str]:
        async with AsyncClient(url) as client:
            async with client.publisher(topic, max_waiting_bytes=200) as publisher:
                futures = [await publisher.publish({"n": n}) for n in range(100)]
                await publisher.flush()
                assert all(future.done() for future in futures)
            with pytest.raises(NotFound):
                async with client.publisher("nowhere") as publisher:
                    with pytest.raises(NotFound):
                        await (await publisher.publish({}))
            return [await future for future in futures]

    ids = asyncio.run(main())
    assert [message.id for message in client.pull(subscription, 1000, wait_seconds=5)] == ids


def test_what_cannot_be_published_fails_in_the_end() -> None:
    with FakeServer() as fake:
        url = fake.url
    with Client(url, retry_seconds=0.3) as client, pytest.raises(NoAnswer), client.publisher("t") as publisher:
        future = publisher.publish({})
        assert isinstance(future.exception(10), NoAnswer)


def test_servers_that_are_killed_lose_nothing_and_publish_nothing_twice(server: Server) -> None:
    futures: list[Future[str]] = []
    with LosesAnswers(server.url, 0) as proxy, Client(proxy.url) as client:
        client.create_topic("t")
        client.create_subscription("s", "t")
        with client.publisher("t", batch_messages=50, batch_seconds=0) as publisher:

            def publish() -> None:
                futures.append(publisher.publish({"n": len(futures)}))

            for _ in range(3):
                for _ in range(1000):
                    publish()
                futures[-500].result()  # it is in the midst of it
                proxy.left = 1
                while proxy.left:  # until a batch is published of which nobody will hear
                    publish()
                    time.sleep(0.001)
                server.kill()
                for _ in range(1000):
                    publish()
                server.start()
        ids = [future.result() for future in futures]

        pulled = []
        while page := client.pull("s", 1000, auto_ack=True):
            pulled += page
    assert [message.payload["n"] for message in pulled] == list(range(len(futures)))
    assert [message.id for message in pulled] == ids
