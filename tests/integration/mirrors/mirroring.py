"""A ledger, SendGrid's suppression lists, and what may happen to either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ledger_rows import add_address
from people import add_person, say
from sqlalchemy import Engine, text
from standin_lists import GROUP, ListsStandIn
from standins import StandIn

from dispatcher import clock, consent, suppression
from dispatcher.consent import ConsentChange
from dispatcher.keys import KeyRing
from dispatcher.mirrors import mirror_now, mirror_when_due
from dispatcher.providers.http import Http
from dispatcher.providers.sendgrid import SendGrid

GROUP_LIST = f"group-{GROUP}"
ANA, BEN, EVE = "ana@people.example", "ben@people.example", "eve@nowhere.example"


@dataclass(repr=False)
class House:
    """A ledger, SendGrid's lists, and what may happen to either."""

    database: Engine
    key_ring: KeyRing
    provider: SendGrid
    lists: ListsStandIn
    waited: list[float] = field(default_factory=list)

    def person(self, name: str, *, said: str = "granted") -> int:
        with self.database.begin() as connection:
            contact = add_person(connection, self.key_ring, name, granted=())
            say(connection, self.key_ring, contact, [("email", "offers", said)])
        return contact

    def address(self, email: str) -> int:
        with self.database.begin() as connection:
            return add_address(connection, self.key_ring, "email", email)

    def suppress(self, email: str, reason: suppression.Reason, source: str = "test") -> None:
        with self.database.begin() as connection:
            suppression.add(connection, add_address(connection, self.key_ring, "email", email), reason, source=source)

    def lift(self, email: str, reason: suppression.Reason) -> None:
        address = self.address(email)
        with self.database.begin() as connection:
            suppression.remove(connection, address, reason, by="test", as_the_person=True)

    def says(self, contact: int, action: str) -> None:
        """The person says so now."""
        with self.database.begin() as connection:
            row = connection.execute(text("SELECT email_address_id FROM contact WHERE id = :id"), {"id": contact}).one()
            now = clock.read_now(connection)
            change = ConsentChange(contact, "email", "offers", action, "person", "test", now, row[0])  # type: ignore[arg-type]
            consent.record(connection, self.key_ring, [change], now=now)

    def push(self) -> None:
        """Let the clock come by once, at a time when no comparison is due."""
        with self.database.begin() as connection:
            connection.execute(
                text("""
                INSERT INTO mirror (provider, reconcile_at) VALUES ('sendgrid', clock_timestamp() + interval '1 day')
                ON CONFLICT (provider) DO UPDATE SET reconcile_at = excluded.reconcile_at, wait_until = NULL""")
            )
            connection.execute(text("UPDATE mirror_change SET retry_at = NULL"))
        mirror_when_due(self.database, self.key_ring, self.provider)

    def compare(self, *, dry_run: bool = False) -> dict[str, dict[str, int]]:
        found = mirror_now(self.database, self.key_ring, self.provider, dry_run=dry_run)
        return {
            name: {str(what): number for what, number in counted.items()} for name, counted in found.figures.items()
        }

    def reasons(self, email: str) -> set[str]:
        with self.database.begin() as connection:
            address = add_address(connection, self.key_ring, "email", email)
            return {one.reason for one in suppression.suppressions_of(connection, address)}

    def waiting(self) -> int:
        with self.database.connect() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM mirror_change")) or 0)


@contextmanager
def house_of(database: Engine, key_ring: KeyRing, api: StandIn) -> Iterator[House]:
    """Yield a house whose provider waits for nothing: `waited` has how long it would have."""
    api.lists = ListsStandIn()
    waited: list[float] = []
    provider = SendGrid(Http(answer_seconds=5), api_key="SG.secret", url=api.url, unsubscribe_group=GROUP,
                        pause=waited.append)  # fmt: skip
    yield House(database, key_ring, provider, api.lists, waited)
    provider.close()
    assert api.lists.complaints == [], "every request is as SendGrid's description says"
