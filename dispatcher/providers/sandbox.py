"""The provider that reaches nobody: every accepted message is one JSON line in outbox.jsonl.

To see how the engine copes, put a `faults.json` beside the outbox:
`{"seconds_per_call": 0.2, "seconds_per_message": 0.001, "reject": [contact, ...], "not_sent": [...], "unknown": [...]}`
(contacts by external id).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import orjson

from dispatcher.providers.protocol import Accepted, Envelope, Moment, NotSent, Receipt, Rejected, Unknown, boot_seconds


class Sandbox:
    name = "sandbox"
    slice_size = 100  # what one kill can leave in doubt

    def __init__(self, folder: Path, channel: str) -> None:
        self._outbox = folder / "outbox.jsonl"
        self._faults = folder / "faults.json"
        self._channel = channel
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # addresses and bodies in clear: as private as a mailbox

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        faults = self._read_faults()
        time.sleep(float(faults.get("seconds_per_call", 0)))
        descriptor = os.open(self._outbox, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _end_torn_line(descriptor)
            return [self._accept(envelope, descriptor, faults, moment, deadline) for envelope in slice_]
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Nothing is held between two calls."""

    def _read_faults(self) -> dict[str, Any]:
        try:
            faults: dict[str, Any] = orjson.loads(self._faults.read_bytes())
        except FileNotFoundError:
            return {}
        return faults

    def _accept(
        self, envelope: Envelope, descriptor: int, faults: dict[str, Any], moment: Moment, deadline: float
    ) -> Receipt:
        time.sleep(float(faults.get("seconds_per_message", 0)))
        boot = boot_seconds()
        if boot >= deadline:
            return NotSent("past the send deadline")
        if envelope.contact in faults.get("not_sent", ()):
            return NotSent("the sandbox was told not to take it", wait=timedelta(seconds=2))
        if envelope.contact in faults.get("reject", ()):
            return Rejected("the sandbox was told to reject it", boot, suppress="invalid")
        line = self._line(envelope, moment, boot)
        os.write(descriptor, line)
        if envelope.contact in faults.get("unknown", ()):
            return Unknown("the sandbox was told not to answer", boot)
        return Accepted(f"sandbox-{envelope.message_id}", boot)

    def _line(self, envelope: Envelope, moment: Moment, boot: float) -> bytes:
        content = envelope.content
        return orjson.dumps(
            {
                "message_id": envelope.message_id,
                "run": envelope.run_id,
                "contact": envelope.contact,
                "channel": self._channel,
                "to": envelope.to,
                "subject": content.subject,
                "headers": envelope.headers,
                "text": content.text,
                "html": content.html,
                "at": moment.instant(boot).astimezone(UTC),
            },
            option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z,
        )


def _end_torn_line(descriptor: int) -> None:
    """If the last writer was killed in mid-line, end that line, so that ours stands on its own."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
