"""One campaign, read and written by a program: under the same rules as a folder that is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from dispatcher import audit, clock, db
from dispatcher.apply import Action, lock_definitions, write_campaign
from dispatcher.clicks.check import check_links
from dispatcher.content import meta_of
from dispatcher.definitions import Campaign, TemplateMeta
from dispatcher.destinations import allowed_hosts
from dispatcher.errors import Conflict, InvalidDefinition, InvalidFields, NotFound
from dispatcher.references import Known, objections
from dispatcher.runs import load_campaign
from dispatcher.shop import load_shop

Check = Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class Written:
    """A campaign as it is in force."""

    campaign: Campaign
    version: int
    origin: str  #: who wrote it last: `workspace`, or `api`
    next_fire_at: datetime | None
    action: Action | None = None  #: what writing it did


def read(connection: Connection, name: str) -> Written:
    """Return the campaign; NotFound if there is none, or it was retired."""
    campaign_id, campaign = load_campaign(connection, name)
    row = connection.execute(
        text("SELECT version, origin, next_fire_at FROM campaign WHERE id = :id"), {"id": campaign_id}
    ).one()
    return Written(campaign, row.version, row.origin, row.next_fire_at)


def put(connection: Connection, campaign: Campaign, *, by: str, check: Check = lambda _: None) -> Written:
    """Write the campaign and return it as it is then; runs under way go on as they were frozen.

    `check` is shown the version that is there, None if there is none, and may raise.  InvalidFields: it refers to what
    is not there.  Conflict: a trigger has the name.
    """
    lock_definitions(connection)
    row = _hold(connection, campaign.name)
    check(row.version if row is not None and row.active else None)
    if found := [*objections(campaign, _known(connection)), *_about_links(connection, campaign)]:
        raise InvalidFields([(f"body.{name}", reason) for name, reason in found])
    trigger = connection.execute(
        text("SELECT FROM trigger WHERE name = :name AND active"), {"name": campaign.name}
    ).one_or_none()
    if trigger is not None:
        raise Conflict(f"there is a trigger {campaign.name}; explain needs them told apart")
    change = write_campaign(connection, campaign, row, clock.read_now(connection), origin="api")
    if change.action != "unchanged":
        audit.record(connection, by, f"campaign.{change.action}", campaign.name, {})
        db.notify(connection, "campaign")
    written = read(connection, campaign.name)
    return Written(written.campaign, written.version, written.origin, written.next_fire_at, change.action)


def retire(connection: Connection, name: str, *, by: str, check: Check = lambda _: None) -> None:
    """Let the campaign start nothing any more; its runs stay.  NotFound if there is none; `check`: as for `put`."""
    lock_definitions(connection)
    row = _hold(connection, name)
    if row is None or not row.active:
        load_campaign(connection, name)  # says which there are
        raise NotFound(f"there is no campaign {name}")
    check(row.version)
    connection.execute(
        text("UPDATE campaign SET active = false, next_fire_at = NULL, fire_error = NULL WHERE id = :id"),
        {"id": row.id},
    )
    audit.record(connection, by, "campaign.retired", name, {})
    db.notify(connection, "campaign")


def _hold(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(
        text("SELECT * FROM campaign WHERE name = :name FOR UPDATE"), {"name": name}
    ).one_or_none()


def _known(connection: Connection) -> Known:
    rows = connection.execute(text("SELECT channel, name, files->>'meta.yaml' AS meta FROM template WHERE current"))
    return Known(
        segments=set(connection.scalars(text("SELECT name FROM segment"))),
        templates={(row.channel, row.name): _meta(row.meta) for row in rows},
        shop=load_shop(connection),
    )


def _about_links(connection: Connection, campaign: Campaign) -> Iterator[tuple[str, str]]:
    """Yield the links of its template that may not lead where they lead, if their clicks are to be counted."""
    files = connection.scalar(
        text("SELECT files FROM template WHERE current AND channel = :channel AND name = :name"),
        {"channel": campaign.channel, "name": campaign.template},
    )
    if not campaign.track_clicks or files is None:
        return
    place, because = f"templates/{campaign.channel}/{campaign.template}", f"{campaign.name} counts clicks"
    for each in check_links(place, files, allowed_hosts(load_shop(connection)), because):
        if each.level == "error":
            yield "track_clicks", str(each)


def _meta(content: str) -> TemplateMeta | None:
    try:
        return meta_of({"meta.yaml": content})
    except InvalidDefinition:
        return None
