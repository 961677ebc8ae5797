"""A live server for the tests: FASTPUBSUB_URL, or else the binary FASTPUBSUB_BIN over a private Postgres."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fastpubsub_client import Client


class Server:
    """A server process, which may be killed and started again on the same port and data."""

    def __init__(self, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="fastpubsub-python-"))
        if os.getuid() == 0:  # root's Postgres runs as user postgres
            shutil.chown(self.folder, "postgres")
        place = {"FASTPUBSUB_DATA_DIR": str(self.folder / "data"), "FASTPUBSUB_API_HOST": "127.0.0.1"}
        self.environment = {**os.environ, **place, "FASTPUBSUB_API_PORT": str(self.port), **settings}
        self.start()

    def start(self) -> None:
        with (self.folder / "server.log").open("a") as log:
            command = [os.environ["FASTPUBSUB_BIN"], "server"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readiness").is_success:
                    return
            assert self.process.poll() is None and time.monotonic() < until, (self.folder / "server.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9: it has no time to answer anybody."""
        self.process.kill()
        self.process.wait()

    def create_client(self, *arguments: str) -> dict[str, str]:
        """The credentials of a new client, by the command line."""
        command = [os.environ["FASTPUBSUB_BIN"], "create_client", *arguments]
        printed = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout
        pairs = (line.split("=", 1) for line in printed.splitlines() if "=" in line)
        return {name.strip(): value.strip() for name, value in pairs}

    def stop(self) -> None:
        if self.process.poll() is not None:
            self.start()  # its Postgres goes with it
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        shutil.rmtree(self.folder)


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Server]:
    if "FASTPUBSUB_BIN" not in os.environ:
        pytest.skip("needs FASTPUBSUB_BIN")
    server = Server(**settings)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    if "FASTPUBSUB_URL" in os.environ:
        yield os.environ["FASTPUBSUB_URL"]
        return
    with running() as server:
        yield server.url


@pytest.fixture(scope="session")
def auth_server() -> Iterator[Server]:
    with running(FASTPUBSUB_AUTH_ENABLED="true", FASTPUBSUB_AUTH_SECRET_KEY="0123456789" * 4) as server:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    """One of its own, for a test that kills it."""
    with running() as server:
        yield server


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


numbers = itertools.count()


@pytest.fixture
def topic(client: Client) -> Iterator[str]:
    name = f"python-{os.getpid()}-{next(numbers)}"
    client.create_topic(name)
    yield name
    client.delete_topic(name)


@pytest.fixture
def subscription(client: Client, topic: str) -> str:
    client.create_subscription(f"{topic}-sub", topic, max_delivery_attempts=3, backoff_min_seconds=1)
    return f"{topic}-sub"
