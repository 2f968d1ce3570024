"""A crowd with every obstacle there is, the same for the same seed, at an evening that is night for some of them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

from people import add_person, say
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, runs, suppression
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.workspace import read_workspace

RULES = (
    FILES["dispatcher.toml"]
    .replace('countries = ["GB"]\n', "")
    .replace('sms = ["20:00-09:00"]', 'email = ["22:00-07:00"]\nsms = ["20:00-09:00"]')
)
HELLO = "name: {name}\nchannel: {channel}\ntopic: offers\nsegment: most\ntemplate: {template}\n"
WORKSPACE = {
    "dispatcher.toml": RULES,
    "segments/most.yaml": "name: most\nmatch: {not: {attribute: country, in: [DE]}}\n",
    "campaigns/hello.yaml": HELLO.format(name="hello", channel="email", template="christmas") + "holdout: 15%\n",
    "campaigns/vip.yaml": HELLO.format(name="vip", channel="email", template="christmas") + "priority: 90\n",
    "campaigns/short.yaml": HELLO.format(name="short", channel="email", template="christmas") + "expires_after: 5h\n",
    "campaigns/texts.yaml": HELLO.format(name="texts", channel="sms", template="short") + "on_cap: defer\n",
    "campaigns/local.yaml": HELLO.format(name="local", channel="email", template="christmas")
    + 'schedule: {cron: "0 10 * * *", zone: Europe/London, local: true, late: skip}\n',
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }}: the shelf is full.\nStop: {{ unsubscribe_url }}\n",
}

_PLACES = (
    ("Europe/London", "GB"), ("Europe/Paris", "FR"), ("America/Los_Angeles", "US"), ("Australia/Sydney", "AU"),
    ("Asia/Kolkata", "IN"), (None, "US"), (None, "FR"), (None, None), ("Europe/Berlin", "DE"),
)  # fmt: skip


def make_crowd(database: Engine, key_ring: KeyRing, folder: Path, *, seed: int, people: int = 60) -> None:
    """Apply the workspace, set the clock to an evening, and add that many people, each with obstacles by chance."""
    draw = random.Random(seed)
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(folder / "workspace", WORKSPACE)), by="test")
        set_clock(connection, evening())
        ids = [_add(connection, key_ring, draw, number) for number in range(people)]
        for contact_id in ids:
            _hinder(connection, key_ring, draw, contact_id)
    _some_had_one_already(database, draw, ids)
    _some_wait_for_another(database, draw, ids)


def evening() -> datetime:
    """Return the next 21:30 UTC but one: night in Paris and London's text messages, morning in Sydney."""
    return datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time(21, 30), UTC)


def set_clock(connection: Connection, at: datetime) -> None:
    clock.shift(connection, at - datetime.now(UTC), sandbox_only=True)


def plan(database: Engine, name: str) -> UUID:
    """Return a run of the campaign, started now and planned to the end."""
    with database.begin() as connection:
        run_id = runs.start(connection, name, started_by="test", again=True)
    while plan_page(database, run_id):
        pass
    return run_id


def external_ids(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT external_id FROM contact ORDER BY id")))


def _add(connection: Connection, key_ring: KeyRing, draw: random.Random, number: int) -> int:
    zone, country = draw.choice(_PLACES)
    wants = draw.choices([(("email", "offers"), ("sms", "offers")), (("email", "offers"),), ()], (7, 2, 1))[0]
    phone = draw.choice([None, f"+4477009{number:05}", "+447700900042", "+447700900043"])
    return add_person(
        connection, key_ring, f"c{number:03}", email=draw.choices(["", None], (9, 1))[0], phone=phone, zone=zone,
        country=country, granted=tuple(w for w in wants if w[0] == "email" or phone),
    )  # fmt: skip


def _hinder(connection: Connection, key_ring: KeyRing, draw: random.Random, contact_id: int) -> None:
    address_id = connection.scalar(text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": contact_id})
    what = draw.choices(
        ("nothing", "withdrawn", "suppressed", "bad", "pause", "expired", "unconfirmed"), (12, *[1] * 6)
    )[0]
    if what == "withdrawn":
        say(connection, key_ring, contact_id, [("email", "offers", "withdrawn")])
    elif what == "suppressed" and address_id is not None:
        suppression.add(connection, address_id, draw.choice(["hard_bounce", "complaint"]), source="test")
    elif what == "bad":
        connection.execute(text("UPDATE address SET state = 'bad' WHERE id = :id"), {"id": address_id})
    elif what == "pause":
        connection.execute(
            text("UPDATE contact SET paused_until = :until WHERE id = :id"),
            {"until": evening() + timedelta(days=9), "id": contact_id},
        )
    elif what == "expired":
        connection.execute(
            text("UPDATE consent SET expires_at = :then WHERE contact_id = :id"),
            {"then": evening() - timedelta(days=1), "id": contact_id},
        )
    elif what == "unconfirmed":
        connection.execute(text("UPDATE consent SET state = 'pending' WHERE contact_id = :id"), {"id": contact_id})


def _some_had_one_already(database: Engine, draw: random.Random, ids: list[int]) -> None:
    """Let one in six have been sent something two hours ago, so that the daily cap is full."""
    run_id = plan(database, "hello")
    had = draw.sample(ids, len(ids) // 6)
    with database.begin() as connection:
        for status in ("sending", "sent"):
            connection.execute(
                text("""UPDATE message SET status = :status, deferred_reason = NULL, batch_id = NULL,
                               authorised_at = :at, handed_over_at = :at, settled_at = :at, provider = 'sandbox'
                        WHERE run_id = :run AND contact_id = ANY(:had) AND status IN ('pending', 'sending')"""),
                {"status": status, "at": evening() - timedelta(hours=2), "run": run_id, "had": had},
            )
        runs.cancel(connection, run_id, by="test")
        while runs.sweep(connection, evening()):
            pass


def _some_wait_for_another(database: Engine, draw: random.Random, ids: list[int]) -> None:
    """Let a run of a more important campaign wait for one in six, and for nobody else."""
    run_id = plan(database, "vip")
    waiting = set(draw.sample(ids, len(ids) // 6))
    with database.begin() as connection:
        connection.execute(
            text("""UPDATE message SET status = 'skipped', reason = 'HOLDOUT', deferred_reason = NULL, batch_id = NULL,
                           settled_at = :at
                    WHERE run_id = :run AND status = 'pending' AND contact_id <> ALL(:waiting)"""),
            {"run": run_id, "waiting": list(waiting), "at": evening()},
        )
