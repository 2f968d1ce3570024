"""What leaves: one mail each, of their own, with a way out."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from sent_off import PEOPLE, Says, batches, outbox, planned, send_all, statuses
from small_workspace import FILES, write_workspace
from sqlalchemy import text

from dispatcher import release
from dispatcher.apply import apply
from dispatcher.providers.protocol import Envelope, Moment, NotSent, Receipt
from dispatcher.providers.sandbox import Sandbox
from dispatcher.sending import Hands, send_batch
from dispatcher.workspace import read_workspace


def test_everybody_who_may_gets_one_mail_of_their_own(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    assert send_all(hands) == PEOPLE
    mails = outbox(tmp_path)
    assert len({mail["contact"] for mail in mails}) == len(mails) == PEOPLE
    assert all(mail["to"] == f"{mail['contact']}@people.example" for mail in mails)
    assert all(f"First{mail['contact']}" in mail["html"] for mail in mails)
    assert statuses(hands.database) == {"sent": PEOPLE}


def test_every_marketing_mail_carries_its_own_way_out(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    send_all(hands)

    links = set()
    for mail in outbox(tmp_path):
        headers = dict(mail["headers"])
        link = headers["List-Unsubscribe"].split(">")[0].lstrip("<")
        assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert link.startswith("https://shop.example/u/")
        assert link in mail["html"]
        assert link in mail["text"]
        links.add(link)
    assert len(links) == PEOPLE


def test_a_doubled_ticket_finds_nothing(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(send_batch(hands, batch_id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(counts) == [0, 0, 0, PEOPLE]
    assert len(outbox(tmp_path)) == PEOPLE


def test_a_message_whose_contact_changed_under_way_is_rendered_anew(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    class Meddler(Sandbox):
        """Changes a contact between the first slice's rendering and its authorisation."""

    provider = Meddler(tmp_path / "sandbox", "email")
    provider.slice_size = PEOPLE // 2
    original = provider.hand_over

    def hand_over(slice_: list[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        with hands.database.begin() as connection:
            connection.execute(text("UPDATE contact SET version = version + 1 WHERE external_id = 'p29'"))
        return original(slice_, moment, deadline)

    provider.hand_over = hand_over  # type: ignore[method-assign]
    meddling = replace(hands, providers={**hands.providers, "email": provider})
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
        rows_before = len(outbox(tmp_path))
    send_batch(meddling, batch_id)
    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT state FROM batch")) == "done"
    release.release(hands.database)
    send_all(hands)

    assert rows_before == 0
    assert statuses(hands.database) == {"sent": PEOPLE}
    assert len(outbox(tmp_path)) == PEOPLE


def test_people_of_one_language_are_handed_over_together(hands: Hands, tmp_path: Path) -> None:
    german = FILES["templates/email/christmas/body.html"].replace("Hello", "Hallo").replace('"en"', '"de"')
    template = {"templates/email/christmas/body.de.html": german}
    with hands.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "german", template)), by="test")
        connection.execute(text("UPDATE contact SET locale = 'de-AT' WHERE id % 2 = 0"))
    planned(hands.database)
    says = Says(tmp_path, NotSent("later"))
    send_all(replace(hands, providers={"email": says}))

    languages = [envelope.content.locale for envelope in says.seen]
    assert languages == sorted(languages)
    assert set(languages) == {"de", "en"}
