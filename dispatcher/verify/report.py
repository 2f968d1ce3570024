"""What a verification says: one result per invariant.  Findings name rows by their ids, never a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from dispatcher.definitions import Shop
from dispatcher.instants import show_instant
from dispatcher.keys import KeyRing
from dispatcher.verify.provider_log import ProviderLog

#: So many findings are shown of each invariant; all are counted.
MOST_SHOWN = 20

Status = Literal["holds", "broken", "not checked"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at."""

    connection: Connection
    key_ring: KeyRing
    moment: datetime  #: engine time at which the transaction began: what had settled by then must be consistent
    log: ProviderLog | None
    shop: Shop | None  #: as applied last; None before the first `apply`
    rules_since: datetime | None  #: when those rules came into force, by the database's own clock; None: not known
    rules_since_engine: datetime | None  #: the same by the engine's clock, if that was not shifted since


class Examination:
    """What one check has found so far."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.checked = 0
        self.total = 0
        self.findings: list[str] = []
        self.notes: list[str] = []
        self.unchecked_because: str | None = None

    def add(self, finding: str) -> None:
        self.total += 1
        if len(self.findings) < MOST_SHOWN:
            self.findings.append(finding)

    def ask(self, query: str, **parameters: Any) -> None:
        """Take every row of a query for violations, one column of text, as a finding."""
        rows = self.subject.connection.execute(
            text(f"SELECT v.*, count(*) OVER () FROM ({query}) AS v(finding) ORDER BY 1 LIMIT {MOST_SHOWN}"),  # noqa: S608 - our own queries
            parameters,
        ).all()
        if rows:
            self.total += rows[0][1]
            self.findings += [finding for finding, _ in rows[: MOST_SHOWN - len(self.findings)]]

    def count(self, query: str, **parameters: Any) -> None:
        """Add the number a query returns to what was checked."""
        self.checked += int(self.subject.connection.execute(text(query), parameters).scalar_one() or 0)

    def note(self, remark: str) -> None:
        """Say what this check cannot see."""
        self.notes.append(remark)

    def not_checked(self, because: str) -> None:
        self.unchecked_because = because


@dataclass(frozen=True, slots=True)
class Invariant:
    """One promise of the ledger: its name, what it says, and who looks."""

    name: str
    statement: str
    check: Callable[[Examination], None]
    needs_log: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one invariant."""

    name: str
    statement: str
    status: Status
    checked: int  #: how many things were looked at
    findings: tuple[str, ...] = ()  #: the first ones
    total: int = 0  #: of all findings
    note: str = ""  #: why it was not checked, or what the check cannot see


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found."""

    at: datetime
    results: tuple[Result, ...]
    provider_log: dict[str, Any] | None = field(default=None)  #: lines read, torn, newer than this look

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked is broken."""
        return all(result.status != "broken" for result in self.results)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "at": show_instant(self.at),
            "provider_log": self.provider_log,
            "invariants": [
                {
                    "name": result.name,
                    "statement": result.statement,
                    "status": result.status,
                    "checked": result.checked,
                    "findings_total": result.total,
                    "findings": list(result.findings),
                    "note": result.note,
                }
                for result in self.results
            ],
        }


def examine(invariant: Invariant, subject: Subject) -> Result:
    """Return what became of one invariant."""
    if invariant.needs_log and subject.log is None:
        return Result(invariant.name, invariant.statement, "not checked", 0, note="needs a provider log")
    found = Examination(subject)
    invariant.check(found)
    status: Status = "broken" if found.total else "holds"
    if found.unchecked_because is not None and not found.total:
        found.notes.insert(0, found.unchecked_because)
        status = "not checked"
    return Result(
        invariant.name, invariant.statement, status, found.checked, tuple(found.findings), found.total,
        "; ".join(found.notes),
    )  # fmt: skip
