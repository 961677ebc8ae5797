"""What goes over the wire: messages, settlements, topics and subscriptions."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Callable, TypedDict, cast

from .transport import Call, T, path_of, send, without_none


@dataclass
class _Content:
    id: str
    subscription_id: str
    payload: Any
    attributes: dict[str, str]
    ordering_key: str | None
    priority: int
    delivery_attempts: int  #: counts this delivery: 1 the first time
    created_at: datetime  #: when it was published


@dataclass
class Message(_Content):
    """One delivery of a message, leased to this consumer until its ack deadline."""

    receipt: str = ""  #: names this delivery; empty with `auto_ack`
    ack_deadline: datetime | None = None  #: until when it was leased, by the server's clock
    #: Set by a worker that lost the lease: somebody else may have the message by now.
    lease_lost: bool = field(default=False, compare=False)


@dataclass
class DeadLetter(_Content):
    """A message that a subscription gave up."""

    reason: str  #: `attempts`, `rejected`, `consumer_lost` or `expired`
    last_error: str | None  #: the reason of the last nack or reject
    dead_at: datetime
    deliveries: list[dict[str, Any]]  #: those that failed, the oldest first


@dataclass
class SettleResult:
    """What became of a delivery."""

    receipt: str
    status: str  #: `acked`, `nacked`, `dead_lettered`, `parked`, `skipped`, `extended` or `lease_lost`
    ack_deadline: datetime | None = None


@dataclass
class Published:
    """What a publish of several messages did."""

    message_ids: list[str]
    duplicates: list[int]  #: positions of those that were there already, under their key


class PublishOptions(TypedDict, total=False):
    """What a message may carry beside its payload. Times have a time zone."""

    attributes: Mapping[str, str] | None  #: filters find them
    ordering_key: str | None  #: one after the other, where a subscription has `enable_ordering`
    priority: int | None  #: 0 to 9, the higher first
    delay_seconds: int | None  #: not delivered before, in whole seconds from now
    deliver_at: datetime | None
    ttl_seconds: int | None  #: not delivered after, in whole seconds from when it is available
    expires_at: datetime | None
    idempotency_key: str | None  #: published once under it, within the server's window of a day
    message_key: str | None  #: not published while another one under it is queued or in hands


class _Payload(TypedDict):
    payload: dict[str, Any]


class OutgoingMessage(_Payload, PublishOptions):
    """A message to publish: `{"payload": {...}, "priority": 9}`."""


class Topic(TypedDict, total=False):
    """A topic, as the server tells it."""

    id: str
    created_at: str
    message_retention_seconds: int
    index_ordering_keys: bool  #: retained messages are found at once by ordering key


class SubscriptionSettings(TypedDict, total=False):
    """Settings of a subscription; None takes one back."""

    filter: dict[str, Any] | None
    ack_deadline_seconds: int | None
    max_delivery_attempts: int
    backoff_min_seconds: float
    backoff_max_seconds: float
    backoff_strategy: str
    dead_letter_topic_id: str | None
    dead_letter_expired: bool
    message_ttl_seconds: int | None
    enable_ordering: bool
    ordering_failure: str
    fairness_key: str | None
    max_in_flight: int | None
    max_in_flight_per_consumer: int | None
    max_rate: int | None
    paused: bool
    expires_after_seconds: int | None  #: deleted when nobody was there for it for so long
    push: dict[str, Any] | None


class Subscription(SubscriptionSettings):
    """A subscription, as the server tells it."""

    id: str
    topic_id: str
    created_at: str


class _Reason(TypedDict, total=False):
    reason: str | None


class Reject(_Reason):
    """A delivery to make a dead letter."""

    receipt: str


class _Delay(TypedDict, total=False):
    delay_seconds: int | None


class Nack(Reject, _Delay):
    """A delivery to give back: after `delay_seconds`, by default after the backoff."""


class Extend(TypedDict):
    """A lease to extend: its ack deadline moves to so many seconds from now."""

    receipt: str
    seconds: int


def build(kind: Callable[..., T], data: dict[str, Any]) -> T:
    """A dataclass from its JSON; a newer server may say more than it knows."""
    known = {field.name: data[field.name] for field in fields(cast(Any, kind)) if field.name in data}
    for name in ("created_at", "ack_deadline", "dead_at"):
        if name in known:
            known[name] = datetime.fromisoformat(known[name].replace("Z", "+00:00"))
    return kind(**known)


def messages_of(data: dict[str, Any]) -> list[Message]:
    """The messages of a pull."""
    return [build(Message, message) for message in data["messages"]]


def results_of(data: dict[str, Any]) -> list[SettleResult]:
    """The results of a settle, or of a pull that settled nothing."""
    return [build(SettleResult, result) for result in data.get("results", [])]


def encode(message: Mapping[str, Any]) -> bytes:
    """A message to publish as JSON. ValueError or TypeError where it has none."""
    wire = {name: moment(value) if isinstance(value, datetime) else value for name, value in message.items()}
    return json.dumps(wire, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def default_consumer_id() -> str:
    """Host and process, for people who look for a stuck message."""
    return f"{socket.gethostname()}-{os.getpid()}"


def publish(topic: str, messages: list[bytes], key: str | None, safe: bool, parse: Callable[[Any], T]) -> Call[T]:
    """A publish of messages that are JSON already."""
    body = b'{"messages":[' + b",".join(messages) + b"]}"
    headers = {} if key is None else {"Idempotency-Key": key}
    return Call("POST", path_of("topics", topic, "publish"), body, headers=headers, safe=safe, parse=parse)


def pull(subscription: str, body: dict[str, Any], parse: Callable[[Any], T]) -> Call[T]:
    """A pull, after which the answer may take a while."""
    more = {"safe": not body["auto_ack"], "wait_seconds": body["wait_seconds"]}
    return send("POST", body, "subscriptions", subscription, "pull", parse=parse, **more)


def settle_one(message: Message, verb: str, **told: Any) -> Call[str]:
    """A settle of one delivery, whose answer is its status."""
    element = reasoned({"receipt": message.receipt, **told}) if told else message.receipt
    path = ("subscriptions", message.subscription_id, "settle")
    return send("POST", {verb: [element]}, *path, parse=lambda data: data["results"][0]["status"])


def reasoned(told: Mapping[str, Any]) -> dict[str, Any]:
    """A nack or reject with a reason as the server takes it: 1024 characters, no NUL, no lone surrogates."""
    wire = without_none(**told)
    if "reason" in wire:
        wire["reason"] = wire["reason"].encode("utf-8", "replace").decode().replace("\0", "?")[:1024]
    return wire


def moment(time: datetime) -> str:
    """A time as the server takes it."""
    if time.tzinfo is None:
        raise ValueError(f"a time without a time zone: {time!r}")
    return time.isoformat()
