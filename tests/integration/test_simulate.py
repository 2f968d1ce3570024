"""Before a start: who would get it in which hour, who loses to what, and whether the lane can carry them in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crowd import plan, set_clock
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from sqlalchemy.exc import InternalError

from dispatcher import db, runs
from dispatcher.apply import apply
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.simulate import refuse_unfinished, simulate
from dispatcher.workspace import read_workspace

NOON = datetime(2030, 5, 7, 12, tzinfo=UTC)  # 13:00 in London
TEXTS = "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n"
FILES_HERE = {
    "segments/everybody.yaml": "name: everybody\nmatch: {not: {attribute: country, in: [DE]}}\n",
    "campaigns/texts.yaml": TEXTS,
    "campaigns/lengthy.yaml": TEXTS.replace("texts", "lengthy").replace("short", "long"),
    "templates/sms/long/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/long/body.txt": "Lanterns! " * 20 + "{{ unsubscribe_url }}\n",
    "templates/sms/long/body.ro.txt": "Lanterne și" * 20 + "{{ unsubscribe_url }}\n",
    "campaigns/brief.yaml": TEXTS.replace("texts", "brief") + "expires_after: 2h\n",
    "campaigns/vip.yaml": FILES["campaigns/hello.yaml"].replace("hello", "vip") + "priority: 90\n",
    "campaigns/daily.yaml": FILES["campaigns/hello.yaml"].replace("hello", "daily")
    + 'schedule: {cron: "0 9 * * *", zone: Europe/London, local: true, late: skip}\n',
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }} {{ unsubscribe_url }}\n",
}
BOTH = (("email", "offers"), ("sms", "offers"))


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    """Noon, and five people who agreed to everything: three in London, one in Tokyo, one in Los Angeles."""
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", FILES_HERE)), by="test")
        set_clock(connection, NOON)
        for number in range(3):
            add_person(connection, key_ring, f"p{number}", phone=f"+44770090000{number}", granted=BOTH)
        add_person(connection, key_ring, "p3", zone="Asia/Tokyo", country="JP", phone="+819012345678",
                   granted=BOTH)  # fmt: skip
        add_person(connection, key_ring, "p4", zone="America/Los_Angeles", country="US", subdivision="CA",
                   phone="+12135550100", granted=BOTH)  # fmt: skip
    return database


def told(shop: Engine, name: str, **more: Any) -> dict[str, Any]:
    with db.reading(shop) as connection:
        return simulate(connection, name, **more).as_json()


def set_rate(shop: Engine, lane: str, rate: float, burst: int = 1) -> None:
    with shop.begin() as connection:
        connection.execute(
            text("INSERT INTO lane (name, rate_per_second, burst) VALUES (:lane, :rate, :burst)"),
            {"lane": lane, "rate": rate, "burst": burst},
        )


def test_nothing_can_be_written_while_a_campaign_is_simulated(shop: Engine) -> None:
    with db.reading(shop) as connection:
        simulate(connection, "hello")
        with pytest.raises(InternalError, match="read-only transaction"):
            connection.execute(text("UPDATE engine SET stopped_by = 'me'"))


def test_texts_leave_in_the_hour_in_which_it_is_day_where_they_are(shop: Engine) -> None:
    found = told(shop, "texts")

    assert (found["send"], found["defer"]) == (3, {"QUIET_HOURS": 2})
    assert [(f"{hour['hour']:%d %H}", hour["local"][11:16], hour["zones"]) for hour in found["timeline"]] == [
        ("07 12", "13:00", {"Europe/London": 3}),
        ("07 16", "17:00", {"America/Los_Angeles": 1}),  # 09:00 there
        ("08 00", "01:00", {"Asia/Tokyo": 1}),
    ]
    assert (found["shop_zone"], found["leaves"], found["warnings"]) == ("Europe/London", 5, [])


def test_a_text_that_cannot_wait_for_the_morning_is_warned_of(shop: Engine) -> None:
    found = told(shop, "brief")

    assert (found["skip"], found["expired"]) == ({"EXPIRED": 2}, {"QUIET_HOURS": 2})
    assert found["warnings"] == [
        "2 contacts would expire before QUIET_HOURS lets them go: give more expires_after (2h now), or start later"
    ]


def test_who_loses_to_a_cap_and_to_a_more_important_campaign_is_counted(shop: Engine) -> None:
    vip = plan(shop, "vip")
    with shop.begin() as connection:
        for status in ("sending", "sent"):
            connection.execute(
                text("""UPDATE message SET status = :status, batch_id = NULL, authorised_at = :at, settled_at = :at
                        WHERE run_id = :run AND contact_id IN (SELECT id FROM contact WHERE external_id IN ('p0', 'p1'))
                     """),
                {"status": status, "at": NOON, "run": vip},
            )
    found = told(shop, "hello")

    assert (found["skip"], found["defer"]) == ({"CAPPED": 2}, {"OUTRANKED": 3})
    assert found["caps"] == {"capped": {"daily": 2}, "outranked": {"vip": 3}}
    assert (found["timeline"], found["never"]) == ([], {"CAPPED": 3}), "when vip has left there is no room for them"
    assert found["warnings"] == [
        "nobody would get it: the funnel says why",
        "cap daily has no room for 2 contacts: start later, or let them wait with on_cap: defer",
        "campaign vip goes first for 3 contacts: start hello when it is through, or give it a higher priority",
        "3 contacts would be put off, and in the end left out as CAPPED: dispatcher explain CONTACT hello says why",
    ]


def test_a_rate_spreads_the_audience_over_the_hours_behind_what_else_is_due(shop: Engine) -> None:
    plan(shop, "vip")  # five messages of another run on the lane
    with shop.begin() as connection:
        connection.execute(text("UPDATE engine SET shop = jsonb_set(shop, '{caps}', '[]')"))
    set_rate(shop, "email.marketing", 1 / 1800)
    found = told(shop, "hello")

    assert found["lane"]["also_due"] == 5
    assert [hour["send"] for hour in found["timeline"]] == [1, 2, 2]
    assert NOON + timedelta(hours=4, minutes=30) <= found["lane"]["finishes_at"] < NOON + timedelta(hours=4, minutes=31)
    assert found["warnings"] == []


def test_texts_take_as_many_of_the_rate_as_they_have_parts(shop: Engine) -> None:
    set_rate(shop, "sms.marketing", 1 / 60)
    with shop.begin() as connection:
        connection.execute(text("UPDATE contact SET locale = 'ro' WHERE external_id = 'p4'"))
    in_london = {}
    for name in ("texts", "lengthy"):
        with db.reading(shop) as connection:
            found = simulate(connection, name)
        in_london[name] = [(at - NOON).total_seconds() / 60 for at, _ in found.passage.left][:3]

    assert in_london["texts"] == pytest.approx([0, 1, 2], abs=0.1)
    each = (4 * 2 + 5) / 5  # of five people one has it in Romanian, whose letters need five parts
    assert in_london["lengthy"] == pytest.approx([0, each, 2 * each], abs=0.1)
    assert found.lane.pace == "one every 60 s, and a text takes 2.6 of that"


def test_a_start_that_the_lane_cannot_finish_is_refused_and_says_how_to_do_it_all_the_same(shop: Engine) -> None:
    set_rate(shop, "sms.marketing", 1 / 3600)
    found = told(shop, "brief", by_hand=True)

    assert found["lane"]["expire_waiting"] == 1
    assert found["never"] == {"EXPIRED": 1}
    assert found["warnings"][0] == (
        "it cannot finish in time: 1 contact would expire before their turn, because lane sms.marketing sends "
        "one every 3600 s; start earlier, give more expires_after (2h now), or split the segment"
    )
    with db.reading(shop) as connection, pytest.raises(Refused, match="add --even-unfinished"):
        refuse_unfinished(connection, "brief")


def test_a_lane_without_a_rate_refuses_nothing_and_asks_nobody(shop: Engine) -> None:
    asked: list[int] = []
    with db.reading(shop) as connection:
        refuse_unfinished(connection, "brief", lambda done, _: asked.append(done))

    assert asked == []


def test_a_turn_that_comes_at_night_is_put_off_and_counted(shop: Engine) -> None:
    set_rate(shop, "sms.marketing", 1 / (4 * 3600))  # London's third would have its turn at 21:00 there
    found = told(shop, "texts")

    assert found["lane"]["put_off_waiting"] > 0
    assert "would have their turn only after the next quiet hours" in found["warnings"][0]


def test_a_campaign_for_each_local_hour_is_shown_at_its_next_occurrence(shop: Engine) -> None:
    found = told(shop, "daily")

    assert found["occurrence"] == "2030-05-08T09:00 Europe/London"
    assert [(f"{hour['hour']:%d %H}", hour["zones"]) for hour in found["timeline"]] == [
        ("08 00", {"Asia/Tokyo": 1}),
        ("08 08", {"Europe/London": 3}),
        ("08 16", {"America/Los_Angeles": 1}),
    ]
    by_hand = told(shop, "daily", by_hand=True)
    assert (by_hand["occurrence"], len(by_hand["timeline"])) == (None, 1)


def test_another_instant_is_judged_as_it_would_be_then(shop: Engine) -> None:
    night = NOON + timedelta(hours=12, minutes=30)  # past midnight in London, morning in Tokyo
    found = told(shop, "texts", as_of=night)

    assert found["as_of"] == night
    assert found["timeline"][0]["zones"] == {"Asia/Tokyo": 1, "America/Los_Angeles": 1}


def test_a_stop_and_an_unknown_place_are_said_and_wait_for_somebody(shop: Engine, key_ring: KeyRing) -> None:
    with shop.begin() as connection:
        connection.execute(text("UPDATE engine SET shop = jsonb_set(shop, '{shop,countries}', '[]')"))
        connection.execute(
            text("UPDATE contact SET zone = NULL, country = NULL, phone_region = NULL WHERE external_id = 'p0'")
        )
    found = told(shop, "hello")
    assert (found["defer"], found["waiting"]) == ({"PLACE_UNKNOWN": 1}, {"PLACE_UNKNOWN": 1})
    assert found["places"]["unknown"] == 1
    assert found["places"]["known_from"] == {"stated zone": 4, "nothing": 1}
    assert "for 1 contact we know no place, or no hour" in found["warnings"][0]

    with shop.begin() as connection:
        runs.stop_all(connection, by="test")
    found = told(shop, "hello")
    assert (found["timeline"], found["waiting"]) == ([], {"OPERATOR": 5})
    assert found["warnings"][0].endswith("dispatcher go-on lifts that")


def test_progress_is_told_page_by_page(shop: Engine) -> None:
    seen: list[tuple[int, int]] = []
    told(shop, "hello", progress=lambda done, whole: seen.append((done, whole)))

    assert seen == [(5, 5)]
