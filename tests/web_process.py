"""The HTTP room as a process of its own, on a free port."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE_SECONDS = 60.0


@contextmanager
def web_process(database_url: str, broker_url: str, home: Path) -> Iterator[str]:
    """Yield its address, like http://127.0.0.1:8000, once it answers; it is told to stop at the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "DISPATCHER_HOME": str(home), "DISPATCHER_PORT": str(port), "DISPATCHER_LOG_LEVEL": "warning",
        "DISPATCHER_DATABASE_URL": database_url, "DISPATCHER_BROKER_URL": broker_url,
    }  # fmt: skip
    log = home / "web.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatcher.web"], env=environment, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the web room does not answer"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=_PATIENCE_SECONDS)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
