"""Runs the clients of docs/streaming.md against a live server: `run_streaming.py URL FOLDER PAGES_PORT`.

FOLDER has ws of npm; pages are served at PAGES_PORT of 127.0.0.1, whose origin the server lets in.
"""

import http.server
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

url, folder, pages_port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
document = Path("docs/streaming.md").read_text()
HERE = "localhost:8000"


def example(language):
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert found.count(HERE) == 1, language
    return found.replace(HERE, url.removeprefix("http://"))


def post(path, body):
    answer = requests.post(url + path, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def counts():
    return requests.get(f"{url}/subscriptions/resize/metrics", timeout=60).json()


def until(expected):
    deadline = time.monotonic() + 60
    while True:
        found = counts()
        if {name: found[name] for name in expected} == expected:
            return
        assert time.monotonic() < deadline, (expected, found)
        time.sleep(0.05)


def publish(payloads):
    post("/topics/images/publish", {"messages": [{"payload": payload} for payload in payloads]})


def streams(kind):
    metrics = requests.get(f"{url}/metrics", timeout=60).text
    [line] = re.findall(rf'^pubsub_open_streams{{kind="{kind}"}} (\d+)', metrics, re.MULTILINE)
    return int(line)


def run(name, kind, command, acked):
    """The client handles what was there before and what comes later, and leaves nothing behind."""
    publish([{"image": number} for number in range(1, 31)])
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until({"acked": acked + 30})
        assert streams(kind) >= 1, kind
        publish([{"image": 31}])
        until({"acked": acked + 31})
    finally:
        running.terminate()
        printed, _ = running.communicate()
    until({"available": 0, "delivered": 0, "dlq": 0})
    print(f"{name} of docs/streaming.md: all is acked")
    return printed


def fails(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


post("/topics", {"id": "images"})
post("/subscriptions", {"id": "resize", "topic_id": "images", "max_delivery_attempts": 1})

python = example("python")
printed = run("the Python worker", "websocket", [sys.executable, "-c", python], 0)
assert printed.count("handled") == 31, printed

(folder / "worker.js").write_text(example("js"))
printed = run("the Node worker", "websocket", ["node", "worker.js"], 31)
assert printed.count("handled") == 31, printed

# what they cannot handle becomes a dead letter, with its reason
for name, code, command in (
    ("python", fails(python, 'print("handled", payload', '1 / 0; print("handled", payload'), [sys.executable, "-c"]),
    ("node", fails(example("js"), 'console.log("handled"', 'null.x; console.log("handled"'), ["node", "--input-type=module", "-e"]),
):
    publish([{"image": name}])
    running = subprocess.Popen([*command, code], cwd=folder)
    try:
        until({"dlq": 1})
    finally:
        running.terminate()
        running.wait()
    [letter] = requests.get(f"{url}/subscriptions/resize/dlq", timeout=60).json()["data"]
    assert re.search("ZeroDivisionError|TypeError", letter["last_error"]), letter
    requests.delete(f"{url}/subscriptions/resize/dlq", timeout=60).raise_for_status()

chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if chromium is None:
    print("NOT TESTED: the page of docs/streaming.md, because there is no chromium (make setup-doors)", file=sys.stderr)
    sys.exit()

page = example("html").encode()


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", pages_port), Pages)
threading.Thread(target=server.serve_forever, daemon=True).start()
profile = folder / "profile"
shutil.rmtree(profile, ignore_errors=True)
# root may not have a sandbox
browser = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
           f"--user-data-dir={profile}", "--remote-debugging-port=0", f"http://127.0.0.1:{pages_port}/"]
run("the page", "sse", browser, 62)
