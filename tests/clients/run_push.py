"""Runs a receiver of docs/push.md against a live server: it takes what is pushed, and nothing else."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

language, folder, url = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
document = Path(__file__, "../../../docs/push.md").resolve().read_text()
[receiver] = re.findall(rf"^```{language}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
assert receiver.count("9000") == 1
receiver = receiver.replace("9000", str(port))
endpoint = f"http://127.0.0.1:{port}/"

if language == "python":
    (folder / "receiver.py").write_text(receiver)
    command = [sys.executable, "receiver.py"]
else:
    (folder / "receiver.ts").write_text(receiver)
    compiled = ["node_modules/.bin/tsc", "--strict", "--target", "es2022", "--module", "commonjs", "receiver.ts"]
    subprocess.run(compiled, cwd=folder, check=True)
    command = ["node", "receiver.js"]


def call(method, path, body=None):
    answer = requests.request(method, url + path, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def until(what, holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def listens():
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def acked(messages):
    until("acks", lambda: call("GET", f"/subscriptions/{language}/metrics")["acked"] == messages)


call("POST", "/topics", {"id": language})
push = {"endpoint": endpoint}
created = call("POST", "/subscriptions", {"id": language, "topic_id": language, "push": push})
environment = {**os.environ, "PUSH_SECRET": created["push"]["secret"]}
running = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
try:
    until("the receiver", listens)
    tested = call("POST", f"/subscriptions/{language}/push/test")
    assert tested["status"] == 204 and "error" not in tested, tested
    # more than ASCII, which is signed as it is sent
    messages = [{"payload": {"n": n, "text": "é ☃ \U0001f600"}} for n in range(20)]
    call("POST", f"/topics/{language}/publish", {"messages": messages})
    acked(20)
    # the receiver knows only the secret of before
    rotated = call("POST", f"/subscriptions/{language}/push/secret", {})
    assert rotated["secret"] != environment["PUSH_SECRET"]
    call("POST", f"/topics/{language}/publish", {"messages": messages[:1]})
    acked(21)
    # what is not signed, or was changed, it does not take
    signed = {"webhook-id": "x", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
    for headers in ({}, signed):
        refused = requests.post(endpoint, json={"message_id": "x"}, headers=headers, timeout=60)
        assert refused.status_code == 401, refused.status_code
finally:
    running.terminate()
    printed, _ = running.communicate()

assert printed.count("handled") == 22, printed
print(f"the receiver of docs/push.md in {language} takes what is signed, and nothing else")
