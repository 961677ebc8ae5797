"""A program written for Pulsar Proxy, as its README shows them: requests in, websockets out."""

import asyncio
import json
import sys
import uuid

import requests
import websockets

URL = sys.argv[1].rstrip("/")
WS = URL.replace("http://", "ws://") + "/ws"
API = f"{URL}/api/v1/messages"
TOPIC = f"orders-{uuid.uuid4().hex}"


def send(payload, **more):
    answer = requests.post(API, json={"topic": TOPIC, "payload": payload, **more}, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def subscribe(ws, **more):
    await ws.send(json.dumps({"type": "subscribe", "topics": [TOPIC], "client_id": "py", **more}))
    subscribed = json.loads(await ws.recv())
    assert subscribed["type"] == "subscribed", subscribed
    assert subscribed["topics"] == [TOPIC]


async def main():
    assert requests.get(f"{URL}/health", timeout=60).json()["status"] == "healthy"
    assert requests.get(f"{URL}/ready", timeout=60).json()["checks"] == {"storage": "ok"}
    assert "/api/v1/messages" in requests.get(f"{URL}/openapi.json", timeout=60).json()["paths"]

    async with websockets.connect(WS) as one, websockets.connect(WS) as two:
        await subscribe(one)
        await subscribe(two)
        sent = send({"order": 17}, metadata={"from": "shop"}, ttl=300)
        for ws in (one, two):
            message = json.loads(await ws.recv())
            assert message["type"] == "message"
            assert message["message_id"] == sent["message_id"]
            assert message["timestamp"] == sent["timestamp"]
            assert message["payload"] == {"order": 17} and message["metadata"] == {"from": "shop"}
            await ws.send(json.dumps({"type": "ack", "message_id": message["message_id"]}))
        await one.send(json.dumps({"type": "ping"}))
        assert json.loads(await one.recv())["type"] == "pong"
        await one.send(json.dumps({"type": "dance"}))
        assert json.loads(await one.recv())["code"] == "UNKNOWN_MESSAGE_TYPE"

        bulk = {"messages": [{"topic": TOPIC, "payload": {"n": n}} for n in range(100)]}
        answer = requests.post(f"{API}/bulk", json=bulk, timeout=60)
        assert answer.status_code == 207
        assert answer.json()["summary"] == {"total": 100, "accepted": 100, "rejected": 0}
        for ws in (one, two):
            assert [json.loads(await ws.recv())["payload"]["n"] for _ in range(100)] == list(range(100))

        await one.send(json.dumps({"type": "unsubscribe", "topics": [TOPIC]}))
        assert json.loads(await one.recv()) == {"type": "unsubscribed", "topics": [TOPIC]}

    # who comes later has all of it
    async with websockets.connect(WS) as late:
        await subscribe(late, offset="earliest")
        assert json.loads(await late.recv())["payload"] == {"order": 17}
        assert [json.loads(await late.recv())["payload"]["n"] for _ in range(100)] == list(range(100))

    query = {"topics": TOPIC, "after": sent["message_id"], "limit": 10}
    polled = requests.get(f"{API}/poll", params=query, timeout=60).json()
    assert [message["payload"]["n"] for message in polled["messages"]] == list(range(10))
    waiting = asyncio.to_thread(requests.get, f"{API}/poll", params={"topics": TOPIC}, timeout=60)
    waiting = asyncio.create_task(waiting)
    await asyncio.sleep(0.5)
    send({"last": True})
    assert (await waiting).json()["messages"][0]["payload"] == {"last": True}

    refused = requests.post(API, json={"topic": "a b", "payload": {}}, timeout=60)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "topic"]

    try:
        async with websockets.connect(WS) as bad:
            await bad.send(json.dumps({"type": "ping"}))
            assert json.loads(await bad.recv())["code"] == "SUBSCRIPTION_ERROR"
            await bad.recv()
        raise AssertionError("it is open")
    except websockets.ConnectionClosed as closed:
        assert closed.rcvd.code == 1008, closed


asyncio.run(main())
print("the Python client works at", URL)
