"""Runs the worker of docs/consuming.md against a live server, with a handler that outlives its leases."""

import re
import subprocess
import sys
import time
from pathlib import Path

import requests

url = sys.argv[1]
document = Path("docs/consuming.md").read_text()
[worker] = re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def replace(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


# leases of 2 s; a handler of 5 s, and one that fails
worker = replace(worker, '"http://localhost:8000/subscriptions/resize", 30', f'"{url}/subscriptions/resize", 2')
worker = replace(
    worker,
    '    print("handled"',
    '    time.sleep(payload["takes"])\n    1 / payload["image"]\n    print("handled"',
)


def post(path, body):
    answer = requests.post(url + path, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


post("/topics", {"id": "images"})
post("/subscriptions", {"id": "resize", "topic_id": "images", "max_delivery_attempts": 1})
messages = [{"payload": {"image": 1, "takes": 5}}, {"payload": {"image": 0, "takes": 0}}]
post("/topics/images/publish", {"messages": messages})

running = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
try:
    deadline = time.monotonic() + 60
    while True:
        counts = requests.get(f"{url}/subscriptions/resize/metrics", timeout=60).json()
        if (counts["acked"], counts["dlq"]) == (1, 1):
            break
        assert time.monotonic() < deadline, counts
        time.sleep(0.1)
finally:
    running.terminate()
    printed, _ = running.communicate()

assert printed.count("handled") == 1, printed
[letter] = requests.get(f"{url}/subscriptions/resize/dlq", timeout=60).json()["data"]
assert letter["payload"]["image"] == 0, letter
assert "ZeroDivisionError" in letter["last_error"], letter
print("the worker of docs/consuming.md extends its leases, acks and nacks")
