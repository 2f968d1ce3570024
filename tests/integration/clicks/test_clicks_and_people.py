"""Links after an erasure, a merge or a new version; and what is told of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from clicking import OWN, PEOPLE, SHELF, WORKSPACE, follow, links, mails, noted
from flows import TRIGGERS, make_flows, order
from ledger import SmallShop
from ledger_rows import wait_until
from people import add_person
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from unsubscribing import everything
from web_server import Web

from dispatcher import previews, reports, rights, verify
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.rendering import Sender
from dispatcher.tokens import ClickedLink, ClickTokens
from dispatcher.workspace import read_workspace


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
