"""A program written for the Message Broker, as its README shows them: with requests alone."""

import json
import sys
import threading
import time
import uuid

import requests

URL, SHOWN = sys.argv[1].rstrip("/"), sys.argv[2]
BASE = f"{URL}/api/v1"
QUEUE, TOPIC = f"payments-{uuid.uuid4()}", f"orders-{uuid.uuid4()}"

session = requests.Session()
session.headers["Authorization"] = f"Bearer {SHOWN}"


def post(path, body=None, status=200):
    """What a POST answers, which must have this status."""
    answer = session.post(f"{BASE}{path}", json=body, timeout=60)
    assert answer.status_code == status, (path, answer.status_code, answer.text)
    return answer.json()


def get(path):
    answer = session.get(f"{BASE}{path}", timeout=60)
    assert answer.status_code == 200, (path, answer.status_code, answer.text)
    return answer.json()


# health, without a key
health = requests.get(f"{URL}/health", timeout=60).json()
assert health["status"] == "healthy", health
assert requests.get(f"{BASE}/queues/{QUEUE}/stats", timeout=60).status_code == 401

# a queue, made as often as one likes
assert session.put(f"{BASE}/queues/{QUEUE}", timeout=60).status_code == 201
assert session.put(f"{BASE}/queues/{QUEUE}", timeout=60).status_code == 200

# a producer, which sends twice because it got no answer
for duplicate in (False, True):
    sent = {"message": {"order_id": 1, "amount": 99.5}, "idempotency_key": "order-1"}
    published = post(f"/queues/{QUEUE}/publish", sent, 200 if duplicate else 201)
    assert published["duplicate"] is duplicate, published
post(f"/queues/{QUEUE}/publish", {"message": "text"}, 201)

# a consumer, as the README's: until there is no tag
consumed = []
while True:
    pulled = session.post(f"{BASE}/queues/{QUEUE}/pull", timeout=60).json()
    if not pulled["delivery_tag"]:
        break
    assert pulled["retry"] == 0, pulled
    consumed.append(pulled["message"])
    post(f"/queues/{QUEUE}/ack", {"delivery_tag": pulled["delivery_tag"]})
assert consumed == [{"order_id": 1, "amount": 99.5}, "text"], consumed

# what cannot be done is nacked until it is in the dead-letter queue
post(f"/queues/{QUEUE}/publish", {"message": "bad"}, 201)
statuses = []
while True:
    pulled = post(f"/queues/{QUEUE}/pull", {"wait_seconds": 5 if len(statuses) < 3 else 0})
    if not pulled["delivery_tag"]:
        break
    nack = {"delivery_tag": pulled["delivery_tag"], "requeue": len(statuses) == 0}
    statuses.append(post(f"/queues/{QUEUE}/nack", nack)["status"])
assert statuses == ["requeued", "retry", "dead_lettered"], statuses
dead = post(f"/queues/{QUEUE}.DLQ/pull")
assert dead["message"] == "bad" and dead["retry"] == 0, dead
post(f"/queues/{QUEUE}.DLQ/ack", {"delivery_tag": dead["delivery_tag"]})
stats = get(f"/queues/{QUEUE}/stats")
assert (stats["ready"], stats["in_flight"], stats["dlq"], stats["acked"]) == (0, 0, 0, 2), stats
assert get(f"/queues/{QUEUE}/peek")["messages"] == []

# a topic with routing keys; one of them in the query, as from a workflow
everything = post(f"/topics/{TOPIC}/subscriptions", {"mode": "pull"}, 201)
created = post(f"/topics/{TOPIC}/subscriptions", {"mode": "pull", "routing_key": "order.*"}, 201)
post(f"/topics/{TOPIC}/publish", {"routing_key": "order.created", "message": {"id": 1}}, 201)
post(f"/topics/{TOPIC}/publish?routing_key=payment.ok", {"message": {"id": 2}}, 201)
for subscription, expected in ((created, [1]), (everything, [1, 2])):
    got = []
    while True:
        ask = {"subscription_id": subscription["subscription_id"]}
        pulled = post(f"/topics/{TOPIC}/pull", ask)
        if not pulled["delivery_tag"]:
            break
        got.append(pulled["message"]["id"])
        post(f"/topics/{TOPIC}/ack", {"delivery_tag": pulled["delivery_tag"]})
    assert got == expected, got

# a stream of events, begun before the message comes
stream = session.get(f"{BASE}/queues/{QUEUE}/stream", stream=True, timeout=60)
assert stream.headers["content-type"] == "text/event-stream", stream.headers
publish = threading.Timer(0.2, post, (f"/queues/{QUEUE}/publish", {"message": "event"}, 201))
publish.start()
data = next(line for line in stream.iter_lines() if line.startswith(b"data: "))
assert json.loads(data[len("data: ") :])["message"] == "event", data
stream.close()
publish.join()

# what is done to all of them
metrics = requests.get(f"{URL}/metrics", timeout=60).text
assert f'broker_messages_published_total{{queue="{QUEUE}"}} 4' in metrics, metrics
begun = time.monotonic()
while get(f"/queues/{QUEUE}/stats")["acked"] < 3:
    assert time.monotonic() - begun < 10
    time.sleep(0.05)
assert session.delete(f"{BASE}/queues/{QUEUE}/messages", timeout=60).json() == {"purged": True}
assert session.delete(f"{BASE}/queues/{QUEUE}", timeout=60).json() == {"deleted": True}
assert QUEUE not in requests.get(f"{URL}/stats", timeout=60).json()["queues"]

print(f"requests {requests.__version__} works at {URL}")
