"""Links of one's own: where they lead, and what a click leaves."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import structlog
from clicking import OWN, PEOPLE, SHELF, follow, links, mails, noted
from ledger import SmallShop
from ledger_rows import wait_until
from sqlalchemy import Engine, text
from structlog.testing import LogCapture
from web_server import Web

from dispatcher import reports
from dispatcher.cli import runs as run_command
from dispatcher.keys import KeyRing
from dispatcher.tokens import ClickedLink, ClickTokens


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
