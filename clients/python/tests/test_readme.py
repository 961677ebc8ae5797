"""The examples of README.md, as they are, against a live server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from fastpubsub_client import Client

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run(url: str, client: Client) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    printed = []
    for block in blocks:
        code = block.replace("http://localhost:8000", url)
        assert code != block
        command = [sys.executable, "-u", "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith("handled") and "handled" not in str(lines[:-1]):  # it goes on until it is told
                    process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        printed.append(lines)

    first, worker, many, asynchronous, retried, errors = printed
    assert first == ["{'country': 'BR', 'order_id': 1} 1"]
    assert worker == ["handled 2"]
    assert len(many[0]) == 36
    assert asynchronous[1] == "billing" and asynchronous[2].startswith("handled")
    assert retried == ["True"]
    assert errors[0] == "422 messages.0.priority messages.0.priority: Input should be less than or equal to 9"
    assert errors[2].startswith("(0, 0)") and errors[3].startswith("{'data': [")
    client.delete_topic("orders")
