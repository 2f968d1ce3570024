"""People are erased while a whole house sends to them: its own workers finish what is in flight, and it stays so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import ROOMY_CAPS, Live, eventually, live_shop, write_people

pytestmark = pytest.mark.thorough

PEOPLE = 600
ERASED = [f"p{number:05}" for number in (0, 50, 100, 200, 300, 599)]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_people(tmp_path / "people.csv", PEOPLE)


@pytest.fixture
def live(tmp_path: Path, people: Path) -> Iterator[Live]:
    with live_shop(tmp_path / "home", workspace=ROOMY_CAPS, people=people) as live:
        yield live


def test_whom_the_house_erases_gets_nothing_more_and_stays_unknown(live: Live, people: Path) -> None:
    live.tell_sandbox(seconds_per_message=0.01)  # a slice takes a second
    run_id = live.start("hello")
    eventually(lambda: live.one("SELECT count(*) FROM message WHERE status = 'sending'"), saying="something in flight")
    flying = live.rows("""SELECT c.external_id FROM message m JOIN contact c ON c.id = m.contact_id
                          WHERE m.status = 'sending' ORDER BY m.contact_id DESC LIMIT 2""")
    erased = [*ERASED, *(row.external_id for row in flying)]

    for external_id in erased:
        done = live.command("contact", "erase", external_id, "--yes", "--json")
        assert json.loads(done.stdout)["state"] in ("done", "in progress")
    eventually(
        lambda: live.one("SELECT count(*) FROM erasure WHERE done_at IS NULL") == 0, saying="the workers finish them"
    )
    live.tell_sandbox()
    live.finish(run_id)

    again = json.loads(live.command("import", "contacts", str(people), "--json").stdout)
    assert again["erased"] == len(set(erased))
    second = live.start("hello")
    live.finish(second)
    assert not {mail["contact"] for mail in live.outbox(second)} & set(erased)
    assert live.one("SELECT count(*) FROM contact WHERE data_key IS NULL") == len(set(erased))

    eventually(
        lambda: live.one("SELECT (SELECT count(*) FROM audit) = (SELECT count(*) FROM audit_link)"),
        saying="the audit linked",
    )
    assert live.command("audit", "verify").returncode == 0
    live.check_invariants()
