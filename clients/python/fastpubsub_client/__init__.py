"""Client of fastpubsub: `Client` blocks, `AsyncClient` is for asyncio.

>>> with Client("http://localhost:8000") as client:
...     client.publish("orders", {"order_id": 1})
"""

from .client import AsyncClient, Client
from .errors import (
    ApiError,
    Conflict,
    FastpubsubError,
    Fault,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from .messages import (
    DeadLetter,
    Extend,
    Message,
    Nack,
    OutgoingMessage,
    Published,
    PublishOptions,
    SettleResult,
    Subscription,
    SubscriptionSettings,
    Topic,
)
from .publisher import AsyncPublisher, Publisher
from .worker import AsyncWorker, Reject, Retry, Worker

# fmt: off
__all__ = [
    "ApiError", "AsyncClient", "AsyncPublisher", "AsyncWorker", "Client", "Conflict", "DeadLetter", "Extend",
    "FastpubsubError", "Fault", "Forbidden", "InvalidRequest", "Message", "Nack", "NoAnswer", "NotFound",
    "OutgoingMessage", "PublishOptions", "Published", "Publisher", "Reject", "Retry", "SettleResult",
    "Subscription", "SubscriptionSettings", "TooLarge", "Topic", "Unauthorized", "Unavailable", "Worker",
]
