"""Clicks: links that lead through us and only to where they led, and what is told of who followed them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from flows import TRIGGERS, make_flows, order
from ledger import SmallShop, make_noon
from ledger_rows import wait_until
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from structlog.testing import LogCapture
from unsubscribing import everything
from web_server import Answer, Web, serving

from dispatcher import previews, reports, rights, verify
from dispatcher.apply import apply
from dispatcher.cli import runs as run_command
from dispatcher.keys import KeyRing
from dispatcher.rendering import Sender
from dispatcher.tokens import ClickedLink, ClickTokens
from dispatcher.workspace import read_workspace

PEOPLE = 6
PERSON = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"}
FOOTER = '<p><a href="{{ unsubscribe_url }}">Stop</a></p><p>{{ shop.postal_address }}</p></body></html>\n'
COUNTED = FILES["campaigns/hello.yaml"] + "track_clicks: true\nutm: {source: letter}\n"
WORKSPACE = {
    "campaigns/hello.yaml": COUNTED,
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n"
    "track_clicks: true\n",
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "The shelf is full: https://small.example/a/rather/long/path?that=costs "
    "Stop: {{ unsubscribe_url }}\n",
    "templates/email/christmas/body.html": """\
<html lang="en"><body><p>Hello {{ contact.first_name }}</p>
<p><a href="https://small.example/shelf?a=1&amp;b=2#top">Shelf</a> <a href="https://www.small.example/">Shop</a></p>
<p><a href="https://small.example/orders/{{ contact.email }}?n=1">Yours</a> <a href="mailto:a@small.example">Write</a>
<a href="tel:+442070000000">Call</a></p>
"""
    + FOOTER,
}
SHELF = "https://small.example/shelf?a=1&b=2&utm_source=letter&utm_medium=email&utm_campaign=hello#top"
OWN = "https://small.example/orders/{}?n=1&utm_source=letter&utm_medium=email&utm_campaign=hello"


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> SmallShop:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", WORKSPACE)), by="test")
        make_noon(connection)
        for number in range(PEOPLE):
            add_person(
                connection, key_ring, f"p{number}", phone=f"+44770090000{number}",
                granted=(("email", "offers"), ("sms", "offers")),
            )  # fmt: skip
    return SmallShop(database, key_ring, tmp_path / "home")


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


def mails(shop: SmallShop) -> dict[str, dict[str, Any]]:
    """What was sent, by contact."""
    import json

    lines = (shop.home / "sandbox" / "outbox.jsonl").read_text().splitlines()
    return {line["contact"]: line for line in map(json.loads, lines)}


def links(mail: dict[str, Any]) -> list[str]:
    """The counted links of a mail in the order of its HTML part, else of its text."""
    return re.findall(r"https://shop\.example(/c/[A-Za-z0-9_-]+)", mail["html"] or mail["text"])


def follow(web: Web, link: str, method: str = "GET", **headers: str) -> Answer:
    return web.ask(method, link, headers=PERSON | headers)


def noted(database: Engine) -> list[tuple[int, str | None]]:
    """Link number and bot of each click that is written down."""
    with database.connect() as connection:
        return [
            tuple(r)
            for r in connection.execute(text("SELECT link, bot FROM feedback WHERE source = 'link' ORDER BY id"))
        ]


def report(database: Engine, run: str = "latest") -> dict[str | None, tuple[int, int]]:
    with database.connect() as connection:
        told = reports.run_report(connection, reports.find_run(connection, run))
    return {line["link"]: (line["people"], line["bots"]) for line in told["clicks"]}


def test_each_mail_has_links_of_its_own_and_they_lead_where_the_template_says(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    sent = mails(shop)

    assert len(sent) == PEOPLE
    everybodys = [link for mail in sent.values() for link in links(mail)]
    assert len(everybodys) == len(set(everybodys)) == PEOPLE * 3
    for contact, mail in sent.items():
        shelf, front, own = links(mail)
        assert sorted(set(re.findall(r"https://shop\.example(/c/[\w-]+)", mail["text"]))) == sorted(links(mail))
        for link, destination in (
            (shelf, SHELF), (front, "https://www.small.example/?utm_source=letter&utm_medium=email&utm_campaign=hello"),
            (own, OWN.format(f"{contact}@people.example")),
        ):  # fmt: skip
            answer = follow(web, link)
            assert (answer.status, answer.header("Location"), answer.body) == (302, destination, b"")
            assert answer.header("Referrer-Policy") == "no-referrer"
            assert answer.header("Cache-Control") == "no-store"
        assert "mailto:a@small.example" in mail["html"]
        assert "tel:+442070000000" in mail["html"]
        assert "/c/" not in dict(mail["headers"])["List-Unsubscribe"]


def test_nothing_in_the_request_changes_where_a_link_leads(shop: SmallShop, web: Web) -> None:
    """ASVS 5.0 3.7.2: no open redirect."""
    shop.campaign("hello")
    [link, *_] = links(mails(shop)["p0"])
    for asked, headers in (
        (f"{link}?url=https://evil.example&to=//evil.example&next=/x", {}), (f"{link}?{'a' * 5_000}", {}),
        (link, {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Original-URL": "https://evil.example"}),
        (link, {"Referer": "https://evil.example/"}),
    ):  # fmt: skip
        answer = follow(web, asked, **headers)
        assert (answer.status, answer.header("Location")) == (302, SHELF)


def test_every_link_that_is_none_gets_the_same_page_and_leads_nowhere(
    shop: SmallShop, web: Web, key_ring: KeyRing
) -> None:
    shop.campaign("hello")
    [link, *_] = links(mails(shop)["p0"])
    tokens = ClickTokens(key_ring)
    wrong = [
        "/c/", "/c/preview", f"{link}A", link[:-1], f"{link}/", "/c/https://evil.example", "/c//evil.example",
        "/c/%2e%2e", f"/c/{tokens.make(ClickedLink(999_999, 0))}", f"/c/{tokens.make(ClickedLink(1, 998))}",
    ]  # fmt: skip
    answers = [follow(web, each) for each in wrong]

    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert all(answer.header("Location") is None for answer in answers)
    assert noted(shop.database) == []


def test_a_click_is_a_fact_beside_the_status_and_says_nothing_of_who_it_was(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    before = everything_but_feedback(shop.database)
    assert follow(web, links(mails(shop)["p0"])[0]).status == 302
    wait_until(lambda: len(noted(shop.database)) == 1)

    assert everything_but_feedback(shop.database) == before
    with shop.database.connect() as connection:
        row = connection.execute(text("SELECT * FROM feedback")).one()._asdict()
    assert (row["kind"], row["source"], row["link"], row["bot"]) == ("clicked", "link", 0, None)
    assert row["sealed"] is row["data_key"] is row["code"] is row["provider_event_id"] is None
    assert "127.0.0.1" not in str(row)
    assert "Firefox" not in str(row)


def everything_but_feedback(database: Engine) -> str:
    """Return every row of every other table."""
    with database.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'feedback' ORDER BY 1")
        )
        return repr([sorted(connection.scalars(text(f"SELECT t::text || t.xmin::text FROM {t} t"))) for t in tables])


def test_the_report_counts_people_and_programs_apart_by_link(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    sent = mails(shop)
    first, _, own = links(sent["p0"])
    follow(web, first)
    follow(web, first)  # the same person again is still one message that was clicked
    follow(web, links(sent["p1"])[0], "HEAD")
    follow(web, links(sent["p2"])[0], **{"Sec-Purpose": "prefetch"})
    follow(web, links(sent["p3"])[0], **{"User-Agent": "curl/8.5"})
    wait_until(lambda: len(noted(shop.database)) == 4)
    shop.wait(timedelta(minutes=6))
    follow(web, own)
    wait_until(lambda: len(noted(shop.database)) == 5)

    assert sorted(noted(shop.database), key=str) == sorted(
        [(0, None), (0, "agent"), (0, "head"), (0, "prefetch"), (2, None)], key=str
    )
    assert report(shop.database) == {
        SHELF: (1, 3), None: (1, 0),
        "https://www.small.example/?utm_source=letter&utm_medium=email&utm_campaign=hello": (0, 0),
    }  # fmt: skip


def test_run_show_lists_the_links_with_people_and_programs(
    shop: SmallShop, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    follow(web, links(mails(shop)["p0"])[2])
    wait_until(lambda: len(noted(shop.database)) == 1)
    with shop.database.connect() as connection:
        run_command.print_funnel(reports.run_report(connection, reports.find_run(connection, "latest")))

    shown = capsys.readouterr().out
    assert re.search(r"by people\s+only by bots", shown)
    assert re.search(r"links of each reader's own\s+1\s+0\s", shown)


def test_whoever_opens_several_links_within_a_second_is_a_program_and_is_led_on_all_the_same(
    shop: SmallShop, web: Web
) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda link: follow(web, link), links(mails(shop)["p0"])))
    wait_until(lambda: len(noted(shop.database)) == 3 and {bot for _, bot in noted(shop.database)} == {"together"})

    assert [answer.status for answer in answers] == [302, 302, 302]
    assert all(people == 0 for people, _ in report(shop.database).values())


def test_no_token_and_no_destination_is_logged(shop: SmallShop, web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    """ASVS 5.0 16.2.5, 14.2.1."""
    shop.campaign("hello")
    capfd.readouterr()
    events = LogCapture()
    structlog.configure(processors=[events])
    own = links(mails(shop)["p0"])[2]
    follow(web, f"{own}?secret=query")
    follow(web, own[:-1])
    wait_until(lambda: [event.get("route") for event in events.entries] == ["/c/{token:path}"] * 2)
    logged = str(events.entries) + "".join(capfd.readouterr())

    for secret in (own.removeprefix("/c/"), "secret", "p0@people.example", "small.example", "Firefox"):
        assert secret not in logged


def test_a_click_within_seconds_of_the_sending_is_a_scanners(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    follow(web, links(mails(shop)["p0"])[0])
    wait_until(lambda: noted(shop.database) == [(0, "soon")])


def test_a_scanner_that_opens_a_link_a_thousand_times_fills_nothing(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    [link, *_] = links(mails(shop)["p0"])
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: follow(web, link).status, range(200))) == {302}
    wait_until(lambda: noted(shop.database) == [(0, None)])


def test_a_click_proves_that_a_message_in_doubt_was_accepted(shop: SmallShop, web: Web) -> None:
    shop.tell_sandbox(unknown=["p0"])
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    with shop.database.connect() as connection:
        message = connection.execute(text("SELECT id, status FROM message WHERE status = 'unknown'")).one()
        number = connection.scalar(text("SELECT id FROM tracked_message WHERE message_id = :id"), {"id": message.id})
    follow(web, f"/c/{ClickTokens(shop.key_ring).make(ClickedLink(number, 0))}")
    with shop.database.connect() as connection:
        wait_until(
            lambda: connection.scalar(text("SELECT status FROM message WHERE id = :id"), {"id": message.id}) == "sent"
        )


def test_of_somebody_erased_what_all_got_still_leads_there_and_their_own_leads_nowhere(
    shop: SmallShop, web: Web
) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    shelf, _, own = links(mails(shop)["p0"])
    with shop.database.begin() as connection:
        contact = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'p0'"))
        rights.request_erasure(connection, shop.key_ring, contact, by="test")
    assert rights.finish_erasures(shop.database, shop.key_ring) == 1
    assert follow(web, shelf).header("Location") == SHELF
    assert follow(web, own).status == 404
    follow(web, links(mails(shop)["p1"])[0])  # written down after both
    wait_until(lambda: noted(shop.database) != [])

    with shop.database.connect() as connection:
        assert connection.scalar(
            text("SELECT array_agg(c.external_id) FROM feedback f JOIN contact c ON c.id = f.contact_id")
        ) == ["p1"]
        assert (
            connection.scalar(
                text("SELECT count(*) FROM tracked_message WHERE contact_id = :id AND sealed IS NOT NULL"),
                {"id": contact},
            )
            == 0
        )


def test_whoever_asks_sees_their_own_links_and_their_clicks(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    shop.wait(timedelta(minutes=5))
    follow(web, links(mails(shop)["p0"])[0])
    wait_until(lambda: noted(shop.database) != [])
    with shop.database.connect() as connection:
        contact = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'p0'"))
        told = rights.export_contact(connection, shop.key_ring, contact)

    [message], [click] = told["messages"], told["feedback"]
    assert message["own_links"] == {"2": OWN.format("p0@people.example")}
    assert (click["kind"], click["link"], click["link_led_to"], click["bot"]) == ("clicked", 0, SHELF, None)


def test_where_a_personal_link_leads_is_sealed_and_what_all_share_is_written_once(shop: SmallShop) -> None:
    shop.campaign("hello")
    with shop.database.connect() as connection:
        shared = connection.execute(text("SELECT number, destination FROM run_link ORDER BY number")).all()
        stored = repr(connection.execute(text("SELECT * FROM tracked_message")).all())
    assert [row.number for row in shared] == [0, 1]
    assert not any("people.example" in row.destination for row in shared)
    assert "people.example" not in stored


def test_after_a_merge_the_losers_links_still_lead_where_they_led(shop: SmallShop, web: Web) -> None:
    shop.campaign("hello")
    sent = mails(shop)
    with shop.database.connect() as connection:
        ids = connection.scalars(text("SELECT id FROM contact WHERE external_id IN ('p0', 'p1') ORDER BY id")).all()
    shop.merge(ids[0], ids[1])

    for contact in ("p0", "p1"):
        assert follow(web, links(sent[contact])[2]).header("Location") == OWN.format(f"{contact}@people.example")


def test_a_text_has_a_short_link(shop: SmallShop, web: Web) -> None:
    shop.campaign("texts")
    sent = mails(shop)

    assert len(sent) == PEOPLE
    [link] = links(sent["p0"])
    assert len(link) < len("/c/") + 20
    assert f"https://shop.example{link} Stop: https://shop.example/u/" in sent["p0"]["text"]
    assert follow(web, link).header("Location") == "https://small.example/a/rather/long/path?that=costs"


def test_verify_finds_a_link_that_counts_for_somebody_else(shop: SmallShop) -> None:
    shop.campaign("hello")
    log = shop.home / "sandbox" / "outbox.jsonl"

    def found() -> list[str]:
        with shop.database.connect() as connection:
            results = verify.verify(connection, shop.key_ring, log).results
        return [example for result in results if result.name == "INV-14" for example in result.findings]

    assert found() == []
    one, other = (links(mails(shop)[contact])[0] for contact in ("p0", "p1"))
    log.write_text(log.read_text().replace(one, other))
    assert any("counts the clicks of" in finding for finding in found())


def test_a_preview_has_the_links_of_its_campaign_and_nothing_is_written(shop: SmallShop) -> None:
    before = everything(shop.database)
    with shop.database.connect() as connection:
        contact = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'p0'"))
        sender = Sender(shop.key_ring, "https://shop.example")
        plain = previews.preview(connection, sender, "email", "christmas", contact, {})
        counted = previews.preview(connection, sender, "email", "christmas", contact, {}, campaign="hello")

    assert 'href="https://small.example/shelf?a=1&amp;b=2#top"' in (plain.content.html or "")
    assert (counted.content.html or "").count("https://shop.example/c/preview") == 3
    assert everything(shop.database) == before


def test_utm_parameters_are_added_without_counting_clicks(shop: SmallShop, tmp_path: Path) -> None:
    only_utm = FILES["campaigns/hello.yaml"] + "utm: {source: s, medium: m, campaign: c}\n"
    with shop.database.begin() as connection:
        workspace = write_workspace(tmp_path / "workspace", WORKSPACE | {"campaigns/hello.yaml": only_utm})
        apply(connection, read_workspace(workspace), by="test")
    shop.campaign("hello")
    mail = mails(shop)["p0"]

    assert "/c/" not in mail["html"] + mail["text"]
    assert (
        "https://small.example/shelf?a=1&amp;b=2&amp;utm_source=s&amp;utm_medium=m&amp;utm_campaign=c#top"
        in mail["html"]
    )
    assert "<https://small.example/shelf?a=1&b=2&utm_source=s&utm_medium=m&utm_campaign=c#top>" in mail["text"]
    with shop.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tracked_message")) == 0


def test_a_run_keeps_the_links_its_first_batch_froze(shop: SmallShop, web: Web) -> None:
    """Whatever the template's links are taken for later, a number leads where it led."""
    shop.plan("hello")
    with shop.database.begin() as connection:
        run_id = reports.find_run(connection, "latest")
        connection.execute(
            text("INSERT INTO run_link VALUES (:run, 0, 'https://small.example/frozen')"), {"run": run_id}
        )
    shop.send()

    assert follow(web, links(mails(shop)["p0"])[0]).header("Location") == SHELF


def test_the_messages_of_a_trigger_have_links_of_their_own_for_each_event(
    database: Engine, key_ring: KeyRing, tmp_path: Path, web: Web
) -> None:
    flows = make_flows(database, key_ring, tmp_path)
    flows.apply(
        {
            "triggers/order-confirmation.yaml": str(TRIGGERS["triggers/order-confirmation.yaml"])
            + "track_clicks: true\n",
            "templates/email/thanks/body.html": "<html lang='en'><body>"
            '<a href="https://small.example/orders/{{ event.source_key }}">Yours</a></body></html>\n',
        }
    )
    with database.begin() as connection:
        add_person(connection, key_ring, "ana")
    flows.arrive(order(flows.now, key="A-17"), order(flows.now, key="A-18"))
    flows.send()

    where = {mail["subject"]: follow(web, links(mail)[0]).header("Location") for mail in flows.mails()}
    assert where == {f"Order A-{n}": f"https://small.example/orders/A-{n}" for n in (17, 18)}
