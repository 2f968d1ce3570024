"""A template as one contact would get it, not sent: by the rendering, headers and links of the real one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from dispatcher import clock
from dispatcher.definitions import Campaign
from dispatcher.errors import NotFound, Refused
from dispatcher.providers.protocol import Envelope
from dispatcher.rendering import CONTACT_COLUMNS, Renderer, Sender
from dispatcher.runs import Run, lane_of, load_campaign, template_of

_ROW = """
    SELECT CAST(:id AS uuid) AS id, CAST(NULL AS text) AS client, c.{channel}_address_id AS address_id,
           CAST(:data AS bytea) AS data, {columns}
    FROM contact c WHERE c.id = :contact
"""


def channel_of(connection: Connection, name: str, wanted: str | None) -> str:
    """Return the channel of the applied template `name`; Refused if it is on several and none was said."""
    channels = connection.scalars(
        text("SELECT channel FROM template WHERE name = :name AND current ORDER BY channel"), {"name": name}
    ).all()
    if wanted is not None and wanted in channels:
        return wanted
    if wanted is not None or not channels:
        raise NotFound(f"there is no {f'{wanted} ' if wanted else ''}template {name}; dispatcher apply brings them in")
    if len(channels) > 1:
        raise Refused(f"template {name} is on {' and '.join(channels)}; say which with --channel")
    return str(channels[0])


def preview(
    connection: Connection, sender: Sender, channel: str, name: str, contact_id: int, data: Mapping[str, Any],
    *, campaign: str | None = None,
) -> Envelope:  # fmt: skip
    """Return the message that this contact would get now; `data` is what the shop would send along.

    With `campaign`, its links are as those of that campaign; where it counts clicks, they lead nowhere yet.
    Raises a DispatcherError if it cannot be rendered, or the contact has no address on the channel.
    """
    links_of = _campaign(connection, campaign, channel, name) if campaign else None
    template_hash, meta = template_of(connection, channel, name)
    now = clock.read_now(connection)
    run = Run(
        id=uuid7(),
        kind="standing",
        campaign_id=None,
        name=campaign or name,
        occurrence_key="preview",
        channel=channel,
        topic=(links_of and links_of.topic) or meta.topic,
        class_=meta.class_,
        lane=lane_of(channel, meta.class_),
        priority=50,
        template_hash=template_hash,
        nominal_at=now,
        as_of=now,
        state="running",
        started_by=None,
        planned_at=None,
        campaign=links_of,
    )
    wrapped = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": contact_id})
    sealed = sender.key_ring.open_data_key(wrapped).seal(dict(data)) if wrapped and data else None
    renderer = Renderer(connection, run, sender)
    renderer.read_ahead(connection, [contact_id])
    row = connection.execute(
        text(_ROW.format(channel=channel, columns=CONTACT_COLUMNS)),
        {"id": uuid7(), "data": sealed, "contact": contact_id},
    ).one()
    return renderer.envelope(row)


def _campaign(connection: Connection, campaign: str, channel: str, template: str) -> Campaign:
    _, found = load_campaign(connection, campaign)
    if (found.channel, found.template) != (channel, template):
        raise Refused(f"campaign {campaign} sends {found.channel}/{found.template}, not {channel}/{template}")
    return found
