"""Applying a workspace: all of it, once, and nothing that runs already is touched."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, text

from dispatcher import interests
from dispatcher.apply import Change, apply
from dispatcher.content.samples import sample_contexts
from dispatcher.errors import InvalidDefinition
from dispatcher.frozen_templates import load_template
from dispatcher.runs import template_of
from dispatcher.shop import load_shop
from dispatcher.workspace import read_workspace

CHRISTMAS = "campaigns/christmas.yaml"


def applied(connection: Connection, folder: Path, changes: dict[str, str | None] | None = None) -> dict[str, Change]:
    """Write the small workspace with these files changed, apply it, and return what happened by kind/name."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    workspace = read_workspace(write_workspace(folder, changes))
    return {f"{change.kind}/{change.name}": change for change in apply(connection, workspace, by="test")}


def edited(old: str, new: str, file: str = CHRISTMAS) -> dict[str, str | None]:
    assert old in FILES[file]
    return {file: FILES[file].replace(old, new)}


def campaign(connection: Connection, name: str = "christmas") -> Any:
    return connection.execute(text("SELECT * FROM campaign WHERE name = :name"), {"name": name}).one()


def changed(changes: dict[str, Change]) -> dict[str, str]:
    return {name: change.action for name, change in changes.items() if change.action != "unchanged"}


def test_a_new_workspace_is_added_whole(connection: Connection, tmp_path: Path) -> None:
    changes = applied(connection, tmp_path)

    assert {change.action for change in changes.values()} == {"added"}
    assert sorted(changes) == [
        "campaign/christmas",
        "campaign/hello",
        "segment/everybody",
        "segment/fans",
        "shop/Small Shop",
        "template/email/christmas",
        "template/email/order",
    ]
    assert load_shop(connection).shop.zone == "Europe/London"
    assert campaign(connection).next_fire_at.strftime("%A %H:%M:%S") in ("Monday 10:00:00", "Monday 09:00:00")
    assert campaign(connection, "hello").next_fire_at is None


def test_the_same_folder_twice_changes_nothing(connection: Connection, tmp_path: Path) -> None:
    applied(connection, tmp_path)
    before = everything(connection)

    assert changed(applied(connection, tmp_path)) == {}
    assert everything(connection) == before


def everything(connection: Connection) -> list[Any]:
    tables = ("engine", "segment", "template", "campaign", "audit")
    return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).all() for table in tables]


def test_what_changed_gets_a_new_version_and_an_audit_row(connection: Connection, tmp_path: Path) -> None:
    applied(connection, tmp_path)

    changes = applied(connection, tmp_path, edited("12h", "6h") | edited("christmas", "xmas", "segments/fans.yaml"))

    assert changed(changes) == {"campaign/christmas": "changed", "segment/fans": "changed"}
    assert campaign(connection).version == 2
    assert connection.scalar(text("SELECT version FROM segment WHERE name = 'fans'")) == 2
    rows = connection.execute(text("SELECT actor, action, subject FROM audit ORDER BY id DESC LIMIT 2")).all()
    assert sorted(rows) == [("test", "campaign.changed", "christmas"), ("test", "segment.changed", "fans")]


def test_only_a_changed_schedule_begins_to_count_afresh(connection: Connection, tmp_path: Path) -> None:
    applied(connection, tmp_path)
    connection.execute(text("UPDATE campaign SET fires_after = fires_after - interval '3 days'"))
    before = campaign(connection)

    applied(connection, tmp_path, edited("12h", "6h"))
    assert campaign(connection).fires_after == before.fires_after

    applied(connection, tmp_path, edited("0 10 * * mon", "30 10 * * *"))
    after = campaign(connection)
    assert after.fires_after > before.fires_after
    assert after.fires_after < after.next_fire_at < before.next_fire_at
    assert after.next_fire_at.minute == 30


def test_a_single_time_that_is_past_is_said_to_be_past(connection: Connection, tmp_path: Path) -> None:
    changes = applied(connection, tmp_path, edited('cron: "0 10 * * mon"', "at: 2020-01-01T10:00"))

    assert changes["campaign/christmas"].note == "its time is past: it will not fire by itself"
    assert campaign(connection).next_fire_at is None


def test_what_left_the_folder_is_retired_and_can_come_back(connection: Connection, tmp_path: Path) -> None:
    applied(connection, tmp_path)

    gone = {name: None for name in FILES if "hello" in name or "everybody" in name or "order" in name}
    changes = applied(connection, tmp_path, gone)

    assert changed(changes) == {
        "campaign/hello": "retired",
        "segment/everybody": "retired",
        "template/email/order": "retired",
    }
    assert not campaign(connection, "hello").active
    assert changed(applied(connection, tmp_path, gone)) == {}
    back = applied(connection, tmp_path)
    assert set(changed(back)) == set(changed(changes))
    assert {change.action for name, change in back.items() if name in changes and name in changed(changes)} == {"added"}
    assert campaign(connection, "hello").active


def test_a_template_is_kept_by_its_content(connection: Connection, tmp_path: Path) -> None:
    subject = "templates/email/christmas/subject.txt"

    def kept() -> dict[str, bool]:
        rows = connection.execute(text("SELECT files->>'subject.txt', current FROM template WHERE name = 'christmas'"))
        return {row[0]: row[1] for row in rows}

    applied(connection, tmp_path)
    applied(connection, tmp_path, {subject: "Another\n"})
    assert kept() == {"For you\n": False, "Another\n": True}

    applied(connection, tmp_path)
    assert kept() == {"For you\n": True, "Another\n": False}


def test_a_run_keeps_the_layout_and_the_words_it_began_with(connection: Connection, tmp_path: Path) -> None:
    body = {"templates/email/christmas/body.html": "<p>{{ words.hello }}</p>\n"}
    layout = '<html lang="en"><body>\n{{ body }}\n<a href="{{ unsubscribe_url }}">Out</a> {{ shop.postal_address }}\n'
    words = "templates/email/words.yaml"
    applied(connection, tmp_path, {**body, "templates/email/layout.html": layout, words: "en: {hello: Hello}\n"})
    frozen, _ = template_of(connection, "email", "christmas")

    changes = applied(
        connection, tmp_path, {**body, "templates/email/layout.html": f"{layout}New", words: "en: {hello: Good day}\n"}
    )

    assert changed(changes) == {"template/email/christmas": "changed"}  # the other has a document of its own
    now, _ = template_of(connection, "email", "christmas")
    values = sample_contexts(locale="en")[0]
    before, after = (load_template(connection, each).render(values, "en").html or "" for each in (frozen, now))
    assert "<p>Hello</p>" in before
    assert not before.endswith("New")
    assert "<p>Good day</p>" in after
    assert after.endswith("New")


def test_two_templates_with_the_same_files_are_two(connection: Connection, tmp_path: Path) -> None:
    twin = {name.replace("/order/", "/twin/"): content for name, content in FILES.items() if "/order/" in name}

    changes = applied(connection, tmp_path, dict(twin))

    assert changes["template/email/twin"].action == changes["template/email/order"].action == "added"
    assert connection.scalar(text("SELECT count(*) FROM template WHERE current AND name IN ('twin', 'order')")) == 2


def test_another_half_life_computes_the_scores_afresh(connection: Connection, tmp_path: Path) -> None:
    applied(connection, tmp_path)
    connection.execute(
        text("""
            WITH c AS (INSERT INTO contact (external_id) VALUES ('1') RETURNING id),
                 e AS (INSERT INTO event (source_key, body_hash, contact_id, name, occurred_at)
                       SELECT '1', '', id, 'order.placed', '2026-01-01' FROM c RETURNING id)
            INSERT INTO event_item (event_id, position, interests) SELECT id, 0, '{tea}' FROM e""")
    )
    interests.add(connection, list(connection.scalars(text("SELECT id FROM event"))))
    before = connection.execute(text("SELECT log2_mass, half_life_days FROM interest")).one()

    longer = FILES["dispatcher.toml"] + '\n[interests]\nhalf_life = "180d"\n'
    changes = applied(connection, tmp_path, {"dispatcher.toml": longer})

    after = connection.execute(text("SELECT log2_mass, half_life_days FROM interest")).one()
    assert (before.half_life_days, after.half_life_days) == (90, 180)
    assert after.log2_mass == pytest.approx(before.log2_mass / 2)
    assert "afresh" in changes["shop/Small Shop"].note


def test_a_folder_with_a_mistake_changes_nothing_at_all(connection: Connection, tmp_path: Path) -> None:
    applied(connection, tmp_path)
    before = everything(connection)

    with pytest.raises(InvalidDefinition):
        applied(connection, tmp_path, edited("12h", "12 x") | {"dispatcher.toml": FILES["dispatcher.toml"] + "\n#\n"})

    assert everything(connection) == before


def test_two_at_once_go_one_after_the_other(database: Engine, tmp_path: Path) -> None:
    workspace = read_workspace(write_workspace(tmp_path))
    outcomes: list[set[str]] = []

    def one() -> None:
        with database.begin() as connection:
            outcomes.append({change.action for change in apply(connection, workspace, by="test")})

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes, key=sorted) == [{"added"}, {"unchanged"}, {"unchanged"}, {"unchanged"}]


def test_loosening_a_contact_window_is_written_down_with_who_answers_for_it(
    connection: Connection, tmp_path: Path
) -> None:
    looser = """[contact_windows.US-KY]
windows = {daily = "08:00-21:00"}
loosened = {by = "J. Doe, counsel", because = "opinion of 3 November 2026"}
"""
    applied(connection, tmp_path)
    applied(connection, tmp_path, {"dispatcher.toml": FILES["dispatcher.toml"] + looser})
    applied(connection, tmp_path, {"dispatcher.toml": FILES["dispatcher.toml"] + looser + "# the same\n"})
    applied(connection, tmp_path)

    rows = connection.execute(
        text("SELECT actor, action, subject, details FROM audit WHERE action LIKE 'contact_window.%' ORDER BY id")
    ).all()
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("test", "contact_window.loosened", "US-KY"),
        ("test", "contact_window.restored", "US-KY"),
    ]
    assert rows[0].details["loosened"] == {"by": "J. Doe, counsel", "because": "opinion of 3 November 2026"}


def test_the_rates_of_the_lanes_are_those_of_the_file(connection: Connection, tmp_path: Path) -> None:
    def rates() -> dict[str, tuple[float | None, int]]:
        rows = connection.execute(text("SELECT name, rate_per_second, burst FROM lane"))
        return {row.name: (row.rate_per_second, row.burst) for row in rows}

    shop = FILES["dispatcher.toml"]
    both = '\n[rates]\n"email.marketing" = {per_second = 50, burst = 100}\n"sms.marketing" = {per_second = 0.5}\n'
    applied(connection, tmp_path, {"dispatcher.toml": shop + both})
    assert rates() == {"email.marketing": (50, 100), "sms.marketing": (0.5, 1)}

    changes = applied(
        connection, tmp_path, {"dispatcher.toml": shop + '\n[rates]\n"sms.marketing" = {per_second = 2}\n'}
    )
    assert changed(changes) == {"shop/Small Shop": "changed"}
    assert rates() == {"email.marketing": (None, 100), "sms.marketing": (2, 2)}

    with pytest.raises(InvalidDefinition, match=r"dispatcher\.toml:\d+: rates\.email"):
        applied(connection, tmp_path, {"dispatcher.toml": shop + "\n[rates]\nemail = {per_second = 2}\n"})
