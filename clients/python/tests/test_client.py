"""Every method against a live server."""

from __future__ import annotations

import asyncio
import inspect
from datetime import datetime, timedelta, timezone

import pytest

from fastpubsub_client import AsyncClient, Client, Conflict, InvalidRequest, NotFound, OutgoingMessage, TooLarge


def test_topics_are_created_changed_listed_and_deleted(client: Client, topic: str) -> None:
    assert client.get_topic(topic)["id"] == topic
    assert client.update_topic(topic, message_retention_seconds=60)["message_retention_seconds"] == 60
    assert topic in [each["id"] for each in client.list_topics()]

    client.create_topic("a.topic-to_delete", message_retention_seconds=5)
    client.delete_topic("a.topic-to_delete")

    with pytest.raises(NotFound) as caught:
        client.get_topic("a.topic-to_delete")
    assert (caught.value.status, caught.value.detail) == (404, "Topic not found")
    assert caught.value.request_id


def test_lists_go_on_from_page_to_page(client: Client, topic: str) -> None:
    names = [f"{topic}-{number:03}" for number in range(101)]
    for name in names:
        client.create_subscription(name, topic)

    assert [each["id"] for each in client.list_subscriptions(topic)] == names


def test_subscriptions_are_created_changed_and_deleted(client: Client, topic: str) -> None:
    made = client.create_subscription("changed", topic, filter={"n": [1]}, ack_deadline_seconds=7)
    assert (made["filter"], made["ack_deadline_seconds"], made["topic_id"]) == ({"n": [1]}, 7, topic)

    changed = client.update_subscription("changed", filter=None, backoff_min_seconds=0.5)
    assert (changed["filter"], changed["backoff_min_seconds"]) == (None, 0.5)
    assert client.get_subscription("changed") == changed
    client.delete_subscription("changed")
    with pytest.raises(NotFound):
        client.pull("changed")


def test_a_subscription_may_start_with_what_was_published_before(client: Client, topic: str) -> None:
    client.update_topic(topic, message_retention_seconds=60)
    client.publish(topic, {"n": 1})

    with pytest.raises(ValueError, match="without a time zone"):
        client.create_subscription(f"{topic}-old", topic, start_from=datetime(2026, 1, 1))
    before = datetime.now(timezone.utc) - timedelta(seconds=30)
    client.create_subscription(f"{topic}-old", topic, start_from=before)

    assert [message.payload for message in client.pull(f"{topic}-old", wait_seconds=5)] == [{"n": 1}]


def test_what_is_published_is_pulled_with_all_it_carries(client: Client, topic: str, subscription: str) -> None:
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    published = client.publish(
        topic, {"n": "ü"}, attributes={"a": "b"}, ordering_key="k", priority=9, expires_at=tomorrow
    )
    later = client.publish_messages(topic, [{"payload": {"n": 2}, "delay_seconds": 3600}])
    assert later.duplicates == []

    [message] = client.pull(subscription, ack_deadline_seconds=30, wait_seconds=5)

    assert (message.id, message.subscription_id, message.payload) == (published, subscription, {"n": "ü"})
    assert (message.attributes, message.ordering_key, message.priority) == ({"a": "b"}, "k", 9)
    assert message.delivery_attempts == 1
    assert message.ack_deadline and message.ack_deadline - message.created_at > timedelta(seconds=25)
    assert client.subscription_metrics(subscription)["scheduled"] == 1


def test_each_way_to_settle_says_what_became_of_the_delivery(client: Client, topic: str, subscription: str) -> None:
    client.publish_messages(topic, [{"payload": {"n": n}} for n in range(3)])
    first, second, third = client.pull(subscription, wait_seconds=5)

    assert client.extend(first, 100) == "extended"
    assert client.ack(first) == "acked"
    assert client.ack(first) == "lease_lost"
    assert client.nack(second, delay_seconds=0, reason="again") == "nacked"
    assert client.reject(third, reason="not \0 what \ud800 was meant" + "x" * 2000) == "dead_lettered"

    [again] = client.pull(subscription, wait_seconds=5)
    assert (again.id, again.delivery_attempts) == (second.id, 2)
    results = client.settle(subscription, acks=[again, first.receipt])
    assert [result.status for result in results] == ["acked", "lease_lost"]
    [letter] = client.list_dead_letters(subscription)
    assert (letter.id, letter.reason, letter.payload) == (third.id, "rejected", {"n": 2})
    assert letter.last_error == ("not ? what ? was meant" + "x" * 2000)[:1024]
    assert letter.dead_at.tzinfo is not None and letter.deliveries[0]["outcome"] == "rejected"


def test_dead_letters_come_back_and_are_purged(client: Client, topic: str, subscription: str) -> None:
    client.publish_messages(topic, [{"payload": {"n": n}} for n in range(3)])
    for message in client.pull(subscription, wait_seconds=5):
        client.reject(message)

    assert client.reprocess_dead_letters(subscription, filter={"n": [0, 1]}, limit=1) == (1, 1)
    assert client.reprocess_dead_letters(subscription, filter={"n": [1]}) == (1, 0)
    assert client.purge_dead_letters(subscription) == 1
    assert list(client.list_dead_letters(subscription)) == []
    assert sorted(message.payload["n"] for message in client.pull(subscription, wait_seconds=5)) == [0, 1]


def test_with_auto_ack_there_is_nothing_to_settle(client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {})

    [message] = client.pull(subscription, auto_ack=True, wait_seconds=5)

    assert (message.receipt, message.ack_deadline) == ("", None)
    assert client.subscription_metrics(subscription)["acked"] == 1


def test_only_unseen_passes_over_what_this_consumer_had(client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {})
    [message] = client.pull(subscription, wait_seconds=5, consumer_id="one")
    client.nack(message, delay_seconds=0)

    assert client.pull(subscription, only="unseen", consumer_id="one") == []
    assert len(client.pull(subscription, only="unseen", consumer_id="two")) == 1


def test_under_a_key_a_message_is_published_once(client: Client, topic: str) -> None:
    once = client.publish(topic, {"n": 1}, idempotency_key="n-1")
    assert client.publish(topic, {"n": 1}, idempotency_key="n-1") == once

    batch: list[OutgoingMessage] = [{"payload": {"n": 2}}, {"payload": {"n": 3}}]
    first = client.publish_messages(topic, batch, idempotency_key="batch")
    again = client.publish_messages(topic, batch, idempotency_key="batch")
    assert again.message_ids == first.message_ids
    assert (first.duplicates, again.duplicates) == ([], [0, 1])


def test_errors_name_the_field(client: Client, topic: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.publish_messages(topic, [{"payload": {}}, {"payload": {}, "priority": 10}])
    assert caught.value.field == "messages.1.priority"
    assert "less than or equal to 9" in str(caught.value)

    with pytest.raises(InvalidRequest) as caught:
        client.request("GET", "/topics", params={"limit": 1000})
    assert caught.value.field == "query.limit"
    with pytest.raises(Conflict):
        client.create_topic(topic)
    with pytest.raises(TooLarge):
        client.publish(topic, {"text": "x" * 2_000_000})
    with pytest.raises(ValueError, match="not JSON compliant"):
        client.publish(topic, {"n": float("nan")})


def test_an_id_is_never_more_of_a_path(client: Client, topic: str) -> None:
    with pytest.raises((NotFound, InvalidRequest)):
        client.delete_topic(f"x/../{topic}")
    assert client.get_topic(topic)


def test_request_does_the_rest(client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {"n": 1})
    [message] = client.pull(subscription, wait_seconds=5)

    step = {
        "acks": [{"subscription_id": subscription, "receipt": message.receipt}],
        "publishes": [{"topic_id": topic, "messages": [{"payload": {"n": 2}}]}],
    }
    assert len(client.request("POST", "/transactions", json=step)["message_ids"]) == 1
    with pytest.raises(Conflict) as caught:
        client.request("POST", "/transactions", json=step)
    assert caught.value.about == [message.receipt]
    assert client.request("DELETE", f"/subscriptions/{subscription}/messages") is None


def test_asyncio_has_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, list[str]]:
        public = {name for name in dir(kind) if not name.startswith("_")}
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in public}

    assert signatures(AsyncClient) == signatures(Client)
    assert AsyncClient.publish.__doc__ == Client.publish.__doc__


def test_asyncio_publishes_pulls_and_settles(url: str, topic: str, subscription: str) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            assert subscription in [each["id"] async for each in client.list_subscriptions(topic)]
            published = await client.publish(topic, {"n": 1})
            [message] = await client.pull(subscription, wait_seconds=5)
            assert message.id == published
            assert await client.ack(message) == "acked"
            with pytest.raises(NotFound):
                await client.get_topic("nowhere")

    asyncio.run(main())


def test_asyncio_waits_for_several_things_at_once(url: str, topic: str, subscription: str) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            waiting = asyncio.ensure_future(client.pull(subscription, wait_seconds=30))
            await asyncio.sleep(0)
            await client.publish(topic, {"n": 1})
            [message] = await waiting
            assert message.payload == {"n": 1}

    asyncio.run(main())
