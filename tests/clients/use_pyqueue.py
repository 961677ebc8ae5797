"""A program written for PyQueue Server, with its published client: every call that the client has."""

import inspect
import sys
import uuid
from importlib.metadata import version

import requests
from pyqueue_client import PyQueue
from pyqueue_client.remote_queue import RemoteQueueClient

URL, KEY = sys.argv[1], "operator-key"
QUEUE = f"orders-{uuid.uuid4()}"


def refused(call, *arguments):
    """The text of the error that a call ends in."""
    try:
        call(*arguments)
    except ConnectionError as error:
        return str(error)
    raise AssertionError(f"{call.__name__}{arguments} was not refused")


queue = PyQueue(queue_type="remote", server_url=URL, api_key=KEY, queue_name=QUEUE)
client = RemoteQueueClient(URL, QUEUE, KEY)
assert queue.health_check()
assert queue.get_queue_info()["message_count"] == 0

# add: an id given, in the message, or none; once
assert queue.add_message({"task": "pack"}, item_id="order-1") == "order-1"
assert queue.add_message({"id": "order-2", "task": "ship"}) == "order-2"
third = queue.add_message({"task": "bill", "note": "ä😀"})
assert uuid.UUID(third).version == 4
assert queue.add_message({"task": "other"}, item_id="order-1") == "order-1"

# look
ids = [message["id"] for message in queue.get_messages()]
assert ids == ["order-1", "order-2", third], ids
by_hand = requests.get(
    f"{URL.rstrip('/')}/api/v1/queues/{QUEUE}/message/order-1", headers={"X-API-Key": KEY}, timeout=30
).json()
assert by_hand["message_body"] == {"task": "pack"} and by_hand["status"] == "available"
# newer clients have these
if hasattr(queue, "get_message"):
    assert queue.get_message("order-1") == client.get_message("order-1") == by_hand
    assert queue.has_message(third) and not queue.has_message("order-9")
    assert client.has_message(third) and not client.has_message("order-9")
    assert queue.check_existence(["order-9", third, "order-1"]) == [third, "order-1"]
assert queue.get_queue_info()["message_count"] == 3

# receive and delete by handle
received = queue.receive_messages(max_messages=1, visibility_timeout=300)
assert [message["id"] for message in received] == ["order-1"]
assert received[0]["status"] == "in_flight" and received[0]["receive_count"] == 1
assert queue.get_queue_info()["in_flight_messages"] == 1
assert queue.delete_message(received[0]["receipt_handle"])
assert "404" in refused(queue.delete_message, received[0]["receipt_handle"])

# update and remove by id
assert queue.update_message("order-2", {"task": "ship twice"})
assert queue.get_messages()[0]["message_body"] == {"task": "ship twice"}
assert queue.remove_message("order-2")
assert "404" in refused(queue.remove_message, "order-2")
assert "404" in refused(queue.update_message, "order-2", {})

# what newer clients can do
options = inspect.signature(client.receive_messages).parameters
if "only_new" in options:
    held = client.receive_messages(visibility_timeout=1, only_new=True)
    assert [message["id"] for message in held] == [third]
    assert client.receive_messages(only_new=True) == []
    queue.add_message({"task": "more"}, item_id="order-3")
    taken = client.receive_messages(delete_after_receive=True, only_new=True)
    assert [(message["id"], message["status"]) for message in taken] == [("order-3", "processed")]
    assert client.get_message("order-3") is None

# clear
queue.clear_queue()
assert queue.get_messages() == []
assert queue.get_queue_info()["message_count"] == 0

# keys
stranger = RemoteQueueClient(URL, QUEUE, "wrong")
assert "401" in refused(stranger.get_messages)
assert "422" in refused(RemoteQueueClient(URL, QUEUE).get_messages)
assert not stranger.health_check()

# what programs ask without the client
base = f"{URL.rstrip('/')}/api/v1"
session = requests.Session()
assert session.get(f"{base}/health", timeout=30).json()["status"] == "healthy"
session.headers["X-API-Key"] = KEY
me = session.get(f"{base}/auth/me", timeout=30).json()
assert me["queue_permissions"]["*"]["can_manage"], me
rights = session.get(f"{base}/auth/permissions/{QUEUE}", timeout=30).json()
assert rights["has_access"] and rights["can_delete"], rights
queues = session.get(f"{base}/queues", timeout=30).json()
assert QUEUE in [queue["queue_name"] for queue in queues["queues"]], queues
added = session.post(f"{base}/queues/{QUEUE}/messages", json={"message_body": "text"}, timeout=30)
assert added.json()["status"] == "success", added.text
assert client.get_messages()[0]["message_body"] == {"content": "text"}

print(f"pyqueue_client {version('pyqueue_client')} works at {URL}")
