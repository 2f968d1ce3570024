"""A house of a benchmark's own: embedded servers in a folder that is gone at the end."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dispatcher import embedded, logs
from dispatcher.runtime import Runtime, open_runtime
from dispatcher.settings import load_settings


@contextlib.contextmanager
def own_house(**settings: Any) -> Iterator[tuple[Runtime, Path]]:
    """Give the servers of a new home with these settings, and a folder beside it for files."""
    logs.configure("warning")
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as folder:
        home = Path(folder) / "home"
        try:
            given = load_settings(home=home, database_url=None, broker_url=None, log_level="warning", **settings)
            with open_runtime(given, needs_broker=True) as runtime:
                yield runtime, Path(folder)
        finally:
            with contextlib.suppress(OSError):
                embedded.remove(home)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
