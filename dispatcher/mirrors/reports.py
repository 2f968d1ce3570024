"""What was different, kept: one report for each comparison, with the addresses by their hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, text

from dispatcher import clock

#: So many differences of one kind on one list are kept one by one; the figures count all.
MOST_OF_A_KIND = 10_000
KEPT_FOR = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class MirrorReport:
    id: int
    provider: str
    started_at: datetime
    finished_at: datetime | None
    complete: bool
    figures: dict[str, dict[str, int]]  #: by list, then by what
    flaw: str | None  #: why it is not complete


@dataclass(frozen=True, slots=True)
class Difference:
    list: str
    what: str
    address_hash: str  #: hex
    contact: str | None  #: external id of somebody who has the address


def begin(connection: Connection, provider: str, now: datetime) -> int:
    """Open a report and return its id; those too old to be of use go."""
    connection.execute(
        text("DELETE FROM mirror_report WHERE provider = :provider AND started_at < :before"),
        {"provider": provider, "before": now - KEPT_FOR},
    )
    number: int = connection.execute(
        text("INSERT INTO mirror_report (provider, started_at) VALUES (:provider, :now) RETURNING id"),
        {"provider": provider, "now": now},
    ).scalar_one()
    return number


def note(connection: Connection, report_id: int, list_: str, what: str, ids: Sequence[int]) -> None:
    """Keep these differences one by one, as long as there are not too many of the kind."""
    values = {"report": report_id, "list": list_, "what": str(what), "ids": list(ids), "most": MOST_OF_A_KIND}
    if ids:
        connection.execute(_NOTE, values)


_NOTE = text("""
INSERT INTO mirror_difference (report_id, list, address_id, what)
SELECT :report, :list, x.id, :what FROM unnest(CAST(:ids AS bigint[])) AS x(id)
WHERE (SELECT count(*) FROM mirror_difference WHERE report_id = :report AND list = :list AND what = :what) < :most
""")


def finish(connection: Connection, report_id: int | None, figures: Mapping[str, Mapping[Any, int]]) -> None:
    """Write down what was found."""
    shown = {list_: {str(what): number for what, number in counted.items()} for list_, counted in figures.items()}
    connection.execute(
        text("""UPDATE mirror_report SET finished_at = :now, complete = true, figures = CAST(:figures AS jsonb)
                WHERE id = :id"""),
        {"id": report_id, "now": clock.read_now(connection), "figures": orjson.dumps(shown).decode()},
    )


def break_off(connection: Connection, provider: str, why: str) -> None:
    """Write down why the newest comparison did not come to its end."""
    connection.execute(
        text("""UPDATE mirror_report SET finished_at = :now, flaw = :why
                WHERE id = (SELECT max(id) FROM mirror_report WHERE provider = :provider) AND finished_at IS NULL"""),
        {"provider": provider, "now": clock.read_now(connection), "why": why},
    )


def last_report(connection: Connection) -> MirrorReport | None:
    """Return the newest report, complete or not; None if nothing was ever compared."""
    row = connection.execute(
        text("""SELECT id, provider, started_at, finished_at, complete, figures, flaw FROM mirror_report
                ORDER BY id DESC LIMIT 1""")
    ).one_or_none()
    return None if row is None else MirrorReport(*row)


_DIFFERENCES = text("""
SELECT d.list, d.what, encode(a.hash, 'hex'),
       (SELECT c.external_id FROM contact c WHERE c.email_address_id = a.id AND c.merged_into IS NULL
        ORDER BY c.id LIMIT 1)
FROM mirror_difference d JOIN address a ON a.id = d.address_id
WHERE d.report_id = :report ORDER BY d.list, d.what, a.id
""")


def differences_of(connection: Connection, report_id: int) -> list[Difference]:
    """Return what was different, list by list."""
    return [Difference(*row) for row in connection.execute(_DIFFERENCES, {"report": report_id})]
