"""While a campaign is going out: who unsubscribes gets nothing more, and an order confirmation does not wait."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from house import CROWD, Live, eventually, unsubscribe_url

from dispatcher import api_keys
from dispatcher.tokens import UnsubscribeTokens

pytestmark = pytest.mark.thorough

LOOKS = 1_000
CLICKS_OF_EACH_KIND = 20
ORDERS = 4
ONE_CLICK = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Click:
    """A POST on somebody's link, and how long the outbox was when its answer was there."""

    contact: str
    found: str  #: the status of their message right before
    status: int
    outbox_bytes: int


class Links:
    """The way out of everybody who is in a run."""

    def __init__(self, live: Live) -> None:
        tokens = UnsubscribeTokens(live.runtime.key_ring)
        rows = live.rows("SELECT id, external_id, email_address_id AS address FROM contact")
        self._urls = {r.external_id: f"{live.url}/u/{tokens.make(r.id, 'email', 'offers', r.address)}" for r in rows}
        self._live = live

    def of(self, contact: str) -> str:
        return self._urls[contact]

    def look(self, contact: str) -> int:
        return self._live.http(self.of(contact))[0]

    def click(self, contact: str, found: str) -> Click:
        status, _ = self._live.http(self.of(contact), b"List-Unsubscribe=One-Click", ONE_CLICK)
        log = self._live.log  # made with the first message
        return Click(contact, found, status, log.stat().st_size if log.exists() else 0)


def test_nothing_leaves_for_whoever_was_told_200_and_looking_at_links_changes_nothing(
    live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    live.tell_sandbox(seconds_per_call=0.2, seconds_per_message=0.003)
    links, chance = Links(live), random.Random(7)
    agreed = [f"p{number:05}" for number in range(CROWD) if number % 40 != 7]
    only_looked_at = chance.sample(agreed, 300)
    run_id = live.start("hello")
    eventually(lambda: live.statuses(run_id)["sending"])
    with ThreadPoolExecutor(4) as lookers, ThreadPoolExecutor(12) as clickers:
        looks = [lookers.submit(links.look, contact) for contact in chance.choices(only_looked_at, k=LOOKS)]
        clicks = _click_while_it_lasts(live, run_id, links, clickers, leave_out=set(only_looked_at))
        assert {look.result() for look in looks} == {200}
    live.finish(run_id)
    done = [click.result() for click in clicks]

    _check_silence(live, run_id, done)
    _check_links(live, run_id, links)
    live.check_nobody_twice_nobody_lost(run_id)
    _check_only_clicks_were_recorded(live, only_looked_at, done)
    with capsys.disabled():
        print(f"\nPOST in mid-run: {Counter((click.found, click.status) for click in done)}")


def _click_while_it_lasts(
    live: Live, run_id: UUID, links: Links, clickers: ThreadPoolExecutor, *, leave_out: set[str]
) -> list[Future[Click]]:
    """Click for people whose message is pending, sending and sent, a few of each at a time."""
    clicks: list[Future[Click]] = []
    clicked: dict[str, int] = defaultdict(int)
    seen = set(leave_out)
    while not live.is_done(run_id) and min(clicked[s] for s in ("pending", "sending", "sent")) < CLICKS_OF_EACH_KIND:
        rows = live.rows(
            """SELECT external_id, status FROM (
                   SELECT c.external_id, m.status, row_number() OVER (PARTITION BY m.status ORDER BY random()) AS n
                   FROM message m JOIN contact c ON c.id = m.contact_id
                   WHERE m.run_id = :run AND c.external_id <> ALL(:seen) AND m.status IN ('pending', 'sending', 'sent')
               ) AS numbered WHERE n <= 2""",
            run=run_id,
            seen=list(seen),
        )
        for contact, status in rows:
            if clicked[status] < 2 * CLICKS_OF_EACH_KIND:
                clicked[status] += 1
                seen.add(contact)
                clicks.append(clickers.submit(links.click, contact, status))
    return clicks


def _check_silence(live: Live, run_id: UUID, clicks: list[Click]) -> None:
    answered = dict(
        tuple(row)
        for row in live.rows(
            """SELECT c.external_id, u.answered_at FROM unsubscribe u JOIN contact c ON c.id = u.contact_id
               WHERE u.answer = 200"""
        )
    )
    places: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
    position = 0
    for line in live.log.read_bytes().splitlines(keepends=True):
        mail = json.loads(line)
        places[mail["contact"]].append((position, datetime.fromisoformat(mail["at"])))
        position += len(line)
    for click in clicks:
        assert click.status in (200, 202)
        if click.status == 200:
            for place, at in places[click.contact]:
                assert place < click.outbox_bytes, f"written after the answer, having been {click.found}"
                assert at <= answered[click.contact]
    done = Counter(click.found for click in clicks if click.status == 200)
    assert all(done[status] for status in ("pending", "sending", "sent")), done
    reached = {mail["contact"] for mail in live.outbox(run_id)}
    assert any(click.contact not in reached for click in clicks if click.found == "pending")


def _check_links(live: Live, run_id: UUID, links: Links) -> None:
    """The links that were clicked are those in the mails."""
    assert all(unsubscribe_url(mail) == links.of(mail["contact"]) for mail in live.outbox(run_id))


def _check_only_clicks_were_recorded(live: Live, only_looked_at: list[str], clicks: list[Click]) -> None:
    withdrawn = live.rows(
        """SELECT c.external_id FROM consent_event e JOIN contact c ON c.id = e.contact_id
           WHERE e.action = 'withdrawn' AND e.source = 'unsubscribe link'"""
    )
    assert sorted(row.external_id for row in withdrawn) == sorted(click.contact for click in clicks)
    assert live.one("SELECT count(*) FROM unsubscribe") == len(clicks)
    granted = live.one(
        """SELECT count(*) FROM consent k JOIN contact c ON c.id = k.contact_id
           WHERE k.channel = 'email' AND k.topic = 'offers' AND k.state = 'granted' AND c.external_id = ANY(:looked)""",
        looked=only_looked_at,
    )
    assert granted == len(only_looked_at)


def test_the_next_campaign_leaves_out_whoever_unsubscribed(live: Live) -> None:
    run_id = live.start("again")
    live.finish(run_id)
    skipped = live.rows(
        """SELECT c.external_id, m.reason FROM message m JOIN contact c ON c.id = m.contact_id
           WHERE m.run_id = :run AND m.status = 'skipped'""",
        run=run_id,
    )
    gone = live.rows(
        "SELECT DISTINCT c.external_id FROM consent_event e JOIN contact c ON c.id = e.contact_id "
        "WHERE e.channel = 'email' AND e.topic = 'offers' AND e.action = 'withdrawn'"
    )

    assert {row.reason for row in skipped} == {"NO_CONSENT"}
    assert {row.external_id for row in skipped} == {row.external_id for row in gone}
    live.check_nobody_twice_nobody_lost(run_id)


def test_an_order_confirmation_does_not_wait_behind_a_campaign(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.tell_sandbox(seconds_per_call=1.0)
    with live.database.begin() as connection:
        key = api_keys.create(connection, "shop", ["messages:write"])
    runs = [live.start(campaign) for campaign in ("hello", "again", "hello")]
    eventually(lambda: sum(live.statuses(run_id)["sending"] for run_id in runs))
    with ThreadPoolExecutor(ORDERS) as shoppers:
        asked = [shoppers.submit(_order, live, key, number) for number in range(ORDERS)]
        message_ids = {future.result() for future in asked}
        eventually(lambda: message_ids <= {mail["message_id"] for mail in live.outbox()})
        waiting = sum(live.statuses(run_id)["pending"] for run_id in runs)
    live.tell_sandbox()
    left = live.rows(
        """SELECT extract(epoch FROM handed_over_at - due_at) AS seconds FROM message
           WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY 1""",
        ids=list(message_ids),
    )

    assert len(left) == ORDERS
    assert waiting, "the campaign was over before the orders came"
    assert left[-1].seconds < ORDERS, "one after the other"
    for run_id in runs:
        live.finish(run_id)
        live.check_nobody_twice_nobody_lost(run_id)
    with capsys.disabled():
        print(
            f"\n{ORDERS} orders while {waiting} marketing messages waited: the slowest left after "
            f"{left[-1].seconds:.1f} s, 1 s of it the sandbox's own"
        )


def _order(live: Live, key: str, number: int) -> Any:
    """Ask for an order confirmation as the shop does; return the message's id.  A withdrawal does not matter."""
    body = {"template": "order", "channel": "email", "contact": f"p{40 * number + 7:05}", "data": {"order": number}}
    headers = {
        "Authorization": f"Bearer {key}",
        "Idempotency-Key": f"order-{number}",
        "Content-Type": "application/json",
    }
    status, answer = live.http(f"{live.url}/v1/messages", json.dumps(body).encode(), headers)
    assert status == 202, answer
    return json.loads(answer)["id"]
