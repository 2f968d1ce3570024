"""Ends the rooms when their supervisor is gone, even by SIGKILL: `python -m dispatcher.room_guard HOME`.

It reads from a pipe which rooms run (`+PID`, `-PID`).  Only the supervisor holds the other end, so the pipe ends when
the supervisor does.  Then every room that is still there is told to end, and after a while made to; and the embedded
servers are stopped if nobody else uses them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

#: From its authorisation to its last answer: 20 s to begin (`authorise.SEND_WITHIN`), 15 s to write a mail, 60 s for an
#: SMTP server's verdict (over HTTP 45 s in all); and less than the two minutes after which a worker counts as wedged.
LONGEST_HAND_OVER_SECONDS = 100.0
PATIENCE_SECONDS = LONGEST_HAND_OVER_SECONDS + 5.0  # a hand finishes its last slice: no doubt for our hurry
_POLL_SECONDS = 0.05


def main() -> None:
    for asked_to_end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked_to_end, signal.SIG_IGN)  # it ends with its supervisor, not before
    running = _read_until_the_end(sys.stdin.buffer)
    if not running:
        return
    end_groups(running)
    from dispatcher import embedded  # only now: it is rarely needed

    home = Path(sys.argv[1])
    if (home / "servers").is_dir():
        embedded.stop_if_unused(home)


def _read_until_the_end(lines: Iterable[bytes]) -> set[int]:
    """Return the rooms that were still running when the pipe ended."""
    running: set[int] = set()
    for line in lines:
        sign, pid = line[:1], int(line[1:])
        (running.add if sign == b"+" else running.discard)(pid)
    return running


def end_groups(leaders: Iterable[int]) -> None:
    """End these process groups: asked first, made to after a while."""
    leaders = set(leaders)
    for leader in leaders:
        signal_group(leader, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and any(map(is_running, leaders)):
        time.sleep(_POLL_SECONDS)
    for leader in leaders:
        signal_group(leader, signal.SIGKILL)


def signal_group(leader: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers the latter for a group of zombies
        os.killpg(leader, how)


def is_running(pid: int) -> bool:
    """Return whether the process lives; one that only waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


if __name__ == "__main__":
    main()
