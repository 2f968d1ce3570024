"""What people have a right to, and asked for through the storefront: what we hold of them, and that it be erased.

Sources: shopify.dev, "Privacy law compliance": each request is to be completed within 30 days of its arrival;
customers/redact comes ten days after it was asked for, or once the customer's last order may not be disputed any more;
shop/redact comes 48 hours after the app was uninstalled.

A customer's erasure is begun at once.  An export is the operator's to hand over.  That everybody be forgotten who came
from a shop is a step nobody can take back, so a person confirms it: whoever is known only from there is erased then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, text

from dispatcher import audit, rights
from dispatcher.clock import read_now
from dispatcher.contacts import Particulars, find_contact, save_contact
from dispatcher.errors import NotFound, Refused
from dispatcher.keys import KeyRing
from dispatcher.storefronts.reading import Kind, Request

#: shopify.dev, "Privacy law compliance".
WITHIN = timedelta(days=30)
_ERASED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as the operator sees it."""

    id: int
    source: str
    kind: Kind
    reference: str
    contact: str | None  #: external id; None: nobody we know
    requested_at: datetime
    due_at: datetime
    state: Literal["open", "in progress", "done"]
    done_by: str | None


def make_known(connection: Connection, key_ring: KeyRing, particulars: Particulars | None) -> None:
    """Make who is to be erased known, if they are not: what arrives late finds that they were erased."""
    if particulars is not None:
        save_contact(connection, key_ring, replace(particulars, only_fills=True))


_INSERT = text("""
INSERT INTO storefront_request (source, kind, reference, contact_id, requested_at, due_at)
VALUES (:source, :kind, :reference, :contact_id, :now, :due_at)
ON CONFLICT (source, kind, reference) DO NOTHING RETURNING id
""")


def record(
    connection: Connection, key_ring: KeyRing, source: str, request: Request, particulars: Particulars | None
) -> bool:
    """Keep the request, and begin the erasure it asks for; return whether it is new.  See `make_known`."""
    people = [] if particulars is None else _people(connection, key_ring, particulars)
    if request.kind == "erasure":
        for person in people:
            rights.request_erasure(connection, key_ring, person, by=source)
    now = read_now(connection)
    contact_id = people[0] if people else None
    values: dict[str, Any] = {
        "source": source,
        "kind": request.kind,
        "reference": request.reference,
        "contact_id": contact_id,
    }
    number: int | None = connection.scalar(_INSERT, values | {"now": now, "due_at": now + WITHIN})
    if number is None:
        return False
    details = {"request": number, "orders": request.orders}
    subject = f"contact {contact_id}" if contact_id is not None else f"{source} {request.kind}"
    audit.record(connection, source, f"storefront.{request.kind}", subject, details)
    return True


def _people(connection: Connection, key_ring: KeyRing, particulars: Particulars) -> list[int]:
    """Return whom the customer's id means, and whom the address does; mostly they are one."""
    found = []
    for name in (particulars.external_id, particulars.email):
        try:
            found.append(find_contact(connection, key_ring, name or ""))
        except NotFound:
            continue
    return list(dict.fromkeys(found))


_LIST = text("""
SELECT r.*, c.external_id, e.requested_at AS erasing_since, e.done_at AS erased_at, e.requested_by
FROM storefront_request r LEFT JOIN contact a ON a.id = r.contact_id
LEFT JOIN contact c ON c.id = COALESCE(a.merged_into, a.id)
LEFT JOIN erasure e ON e.contact_id = c.id
ORDER BY r.id
""")


def list_requests(connection: Connection, *, every: bool = False) -> list[Asked]:
    """Return the requests that are not done, oldest first; `every`: also those that are."""
    asked = [_asked(row) for row in connection.execute(_LIST)]
    return [one for one in asked if every or one.state != "done"]


def _asked(row: Row[Any]) -> Asked:
    state: Literal["open", "in progress", "done"] = "open" if row.done_at is None else "done"
    done_by = row.done_by
    if row.kind == "erasure" and row.done_at is None and row.erasing_since is not None:
        state, done_by = ("in progress", None) if row.erased_at is None else ("done", row.requested_by)
    return Asked(row.id, row.source, row.kind, row.reference, row.external_id, row.requested_at, row.due_at, state,
                 done_by)  # fmt: skip


def settle(connection: Connection, number: int, *, by: str) -> None:
    """Note that the operator has done what was asked for; Refused for what is not theirs to do by hand."""
    row = _open_row(connection, number)
    if row.kind == "shop_erasure":
        raise Refused(f"request {number} asks for a shop's people to be erased: dispatcher storefront erase {number}")
    _mark_done(connection, row, by)


def _open_row(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(
        text("SELECT * FROM storefront_request WHERE id = :number FOR UPDATE"), {"number": number}
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no request {number}; dispatcher storefront requests lists them")
    if row.done_at is not None:
        raise Refused(f"request {number} was done by {row.done_by}")
    return row


def _mark_done(connection: Connection, row: Row[Any], by: str) -> None:
    connection.execute(
        text("UPDATE storefront_request SET done_at = :now, done_by = :by WHERE id = :id"),
        {"now": read_now(connection), "by": by, "id": row.id},
    )
    subject = f"contact {row.contact_id}" if row.contact_id is not None else f"{row.source} {row.kind}"
    audit.record(connection, by, "storefront.done", subject, {"request": row.id, "kind": row.kind})


# Known by no other name, from no other event, and from nobody else's word of what they allow.
_ONLY_FROM = """
FROM contact c
WHERE c.merged_into IS NULL AND c.erased_at IS NULL
AND (EXISTS (SELECT FROM contact_alias a WHERE a.contact_id = c.id AND starts_with(a.external_id, :numbered))
     OR EXISTS (SELECT FROM event e WHERE e.contact_id = c.id AND e.source = :source))
AND NOT EXISTS (SELECT FROM contact_alias a WHERE a.contact_id = c.id AND NOT (
    starts_with(a.external_id, :numbered) OR a.external_id ~ '^(email|phone)-[0-9a-f]{16}$'))
AND NOT EXISTS (SELECT FROM event e WHERE e.contact_id = c.id AND e.source <> :source)
AND NOT EXISTS (SELECT FROM consent_event k WHERE k.contact_id = c.id AND k.action <> 'withdrawn'
                AND NOT (k.actor = 'shop' AND starts_with(k.source, :spoken)))
"""


def known_only_from(connection: Connection, source: str) -> int:
    """Return how many people we know from this storefront and from nowhere else."""
    return int(connection.scalar(text(f"SELECT count(*) {_ONLY_FROM}"), _names(source)) or 0)


def about_shop(connection: Connection, number: int) -> tuple[str, int]:
    """Return which storefront request `number` wants forgotten, and how many people are known only from there."""
    row = _shop_row(connection, number)
    return row.source, known_only_from(connection, row.source)


def _shop_row(connection: Connection, number: int) -> Row[Any]:
    row = _open_row(connection, number)
    if row.kind != "shop_erasure":
        raise Refused(f"request {number} is no shop/redact; dispatcher storefront requests says what it is")
    return row


def erase_shop(database: Engine, key_ring: KeyRing, number: int, *, by: str) -> int:
    """Begin to erase everybody who is known only from the shop that request `number` is about; return how many.

    In pages, so that it can be cut short and begun again.
    """
    with database.begin() as connection:
        row = _shop_row(connection, number)
    erased = 0
    page = text(f"SELECT c.id {_ONLY_FROM} ORDER BY c.id LIMIT {_ERASED_AT_ONCE}")
    while True:
        with database.connect() as connection:
            people = connection.scalars(page, _names(row.source)).all()
        if not people:
            break
        for contact_id in people:
            with database.begin() as connection:
                rights.request_erasure(connection, key_ring, contact_id, by=by)
            erased += 1
    with database.begin() as connection:
        _mark_done(connection, _open_row(connection, number), by)
    return erased


def _names(source: str) -> dict[str, str]:
    return {"source": source, "numbered": f"{source}-", "spoken": f"{source} "}
