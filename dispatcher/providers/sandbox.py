"""The provider that reaches nobody: every accepted message is one JSON line in outbox.jsonl.

To see how the engine copes, put a `faults.json` beside the outbox:
`{"seconds_per_call": 0.2, "seconds_per_message": 0.001, "reject": [contact, ...], "not_sent": [...], "unknown": [...]}`
(contacts by external id), or `{"down": true}`, as if nobody were there.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from dispatcher.doubt import Doubtful, Sighting
from dispatcher.providers.protocol import (
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Receipt,
    Rejected,
    Trial,
    Unknown,
    boot_seconds,
)


class Sandbox:
    name = "sandbox"
    slice_size = 100  # what one kill can leave in doubt

    def __init__(self, folder: Path, channel: str) -> None:
        self._outbox = folder / "outbox.jsonl"
        self._faults = folder / "faults.json"
        self._channel = channel
        self._read_up_to = 0
        self._missed: set[bytes] = set()
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # addresses and bodies in clear: as private as a mailbox

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        faults = self._read_faults()
        time.sleep(float(faults.get("seconds_per_call", 0)))
        descriptor = os.open(self._outbox, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _end_torn_line(descriptor)
            if faults.get("down"):
                return [NotSent("the sandbox was told not to be there", unreachable=True) for _ in slice_]
            return [self._accept(envelope, descriptor, faults, moment, deadline) for envelope in slice_]
        finally:
            os.close(descriptor)

    def try_account(self, seconds: float) -> list[Trial]:  # noqa: ARG002 - there is nobody to ask
        return [Trial(ok=True, detail="the sandbox reaches nobody")]

    def look_up(self, doubtful: Sequence[Doubtful]) -> list[Sighting]:
        """Return which of these messages stand in the outbox.  What it has read once, it does not read again."""
        wanted = {str(one.message_id).encode(): one.message_id for one in doubtful}
        begin = self._read_up_to if wanted.keys() <= self._missed else 0
        found: list[Sighting] = []
        size = self._outbox.stat().st_size if self._outbox.exists() else 0
        begin = end = begin if begin <= size else 0  # the outbox was cleared away
        if not size:
            return found
        with self._outbox.open("rb") as outbox:
            outbox.seek(begin)
            for line in outbox:
                if not line.endswith(b"\n"):  # somebody writes it just now
                    break
                end += len(line)
                key = line[len(_FIRST) : len(_FIRST) + _UUID_LENGTH] if line.startswith(_FIRST) else b""
                if key in wanted and (sighting := _sighting(line, wanted[key])) is not None:
                    found.append(sighting)
        self._read_up_to = end
        self._missed = wanted.keys() - {str(one.message_id).encode() for one in found}
        return found

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
            return NotSent("the sandbox was told not to take it", wait=timedelta(seconds=2), answered=True)
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


_FIRST = b'{"message_id":"'
_UUID_LENGTH = 36


def _sighting(line: bytes, message_id: UUID) -> Sighting | None:
    try:
        at = datetime.fromisoformat(orjson.loads(line)["at"])
    except (orjson.JSONDecodeError, KeyError, ValueError):  # torn by a kill: not whole, so not accepted for certain
        return None
    return Sighting(message_id, f"sandbox-{message_id}", at)


def _end_torn_line(descriptor: int) -> None:
    """If the last writer was killed in mid-line, end that line, so that ours stands on its own."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
