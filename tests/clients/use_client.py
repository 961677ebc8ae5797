"""Uses the client that openapi-python-client made of /openapi.json against a live server."""

import sys

from fastpubsub_client import Client
from fastpubsub_client.api.dead_letters import list_dlq_messages, reprocess_dlq_messages
from fastpubsub_client.api.messages import publish_messages, pull_messages, settle_messages
from fastpubsub_client.api.subscriptions import create_subscription, subscription_metrics
from fastpubsub_client.api.topics import create_topic, get_topic, list_topics
from fastpubsub_client.models import (
    CreateSubscription,
    CreateTopic,
    Error,
    Nack,
    OutgoingMessage,
    PublishMessages,
    PullRequest,
    Reject,
    ReprocessMatching,
    SettleRequest,
)

client = Client(base_url=sys.argv[1])


def payload_of(**fields):
    return OutgoingMessage.from_dict({"payload": fields, "attributes": {"region": "eu"}})


def pull(**more):
    body = PullRequest(consumer_id="python", **more)
    return pull_messages.sync(id="mail", client=client, body=body).messages


def settle(**lists):
    answer = settle_messages.sync(id="mail", client=client, body=SettleRequest(**lists))
    return [result.status for result in answer.results]


topic = create_topic.sync(client=client, body=CreateTopic(id="user-events"))
assert topic.id == "user-events", topic
assert topic.created_at.tzinfo is not None, topic
subscription = create_subscription.sync(
    client=client,
    body=CreateSubscription.from_dict(
        {"id": "mail", "topic_id": "user-events", "filter": {"n": [1, 2, 3]}}
    ),
)
assert subscription.max_delivery_attempts == 5, subscription
assert subscription.filter_.to_dict() == {"n": [1, 2, 3]}, subscription

messages = [payload_of(n=n, more={"list": [n, None]}) for n in range(1, 5)]
published = publish_messages.sync(
    id="user-events", client=client, body=PublishMessages(messages=messages)
)
assert len(published.message_ids) == 4, published
assert published.duplicates == [], published

first, second, third = pull(max_messages=10, wait_seconds=1)
assert first.payload.to_dict() == {"n": 1, "more": {"list": [1, None]}}, first
assert first.attributes["region"] == "eu", first
assert first.id == published.message_ids[0], first
assert first.ordering_key is None, first
statuses = settle(
    acks=[first.receipt],
    nacks=[Nack(receipt=second.receipt, delay_seconds=0, reason="again")],
    rejects=[Reject(receipt=third.receipt, reason="broken")],
)
assert statuses == ["acked", "nacked", "dead_lettered"], statuses
assert settle(acks=[first.receipt]) == ["lease_lost"]
[again] = pull()
assert (again.id, again.delivery_attempts) == (second.id, 2), again

[letter] = list_dlq_messages.sync(id="mail", client=client).data
assert (letter.id, letter.reason, letter.last_error) == (third.id, "rejected", "broken"), letter
assert letter.deliveries[0].outcome == "rejected", letter
redone = reprocess_dlq_messages.sync(id="mail", client=client, body=ReprocessMatching(all_=True))
assert (redone.reprocessed, redone.remaining) == (1, 0), redone
counts = subscription_metrics.sync(id="mail", client=client)
assert (counts.available, counts.delivered, counts.dlq) == (1, 1, 0), counts

missing = get_topic.sync(id="nope", client=client)
assert isinstance(missing, Error) and missing.detail == "Topic not found", missing
refused = list_topics.sync(client=client, limit=1000)
[fault] = refused.detail
assert (fault.loc, fault.type_) == (["query", "limit"], "less_than_equal"), fault
taken = create_topic.sync_detailed(client=client, body=CreateTopic(id="user-events"))
assert taken.status_code == 409 and taken.parsed.detail == "This topic already exists", taken
print("the generated Python client works")
