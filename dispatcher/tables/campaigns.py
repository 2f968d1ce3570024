"""What is to be sent to whom and when: definitions as `apply` read them, and their runs."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher.tables.base import CHANNELS, CLASSES, instant, metadata, one_of

segment = Table(
    "segment",
    metadata,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
)

template = Table(  # content by hash: what a run froze can be read for ever
    "template",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("files", JSONB, nullable=False),  # file name -> text, meta.yaml included
    Column("current", Boolean, nullable=False, server_default=text("true")),  # the one `apply` read last
    Index("template_current_key", "channel", "name", unique=True, postgresql_where=text("current")),
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("definition", JSONB, nullable=False),  # definitions.Campaign
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("origin", Text, nullable=False, server_default=text("'workspace'")),  # who wrote it last: apply, or the API
    instant("fires_after"),  # only occurrences later than this count: the last edit or the last fire
    instant("next_fire_at"),
    Column("fire_error", Text),  # why the clock could not fire what is due, until it could
    Column("fire_failures", Integer, nullable=False, server_default=text("0")),
    instant("fire_failed_at"),  # the first time, in engine time
    instant("fire_retry_at"),  # by the database's own clock
    Index(None, "next_fire_at", postgresql_where=text("next_fire_at IS NOT NULL")),
    one_of("origin", ("workspace", "api")),
)

trigger = Table(  # triggers/*.yaml: what starts a message of its own for each event
    "trigger",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("definition", JSONB, nullable=False),  # definitions.Trigger
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("paused", Boolean, nullable=False, server_default=text("false")),  # by a human: new versions are born paused
)

flow_exit = Table(  # events that end a flow by its key, whoever's they are; those by contact are found in `event`
    "flow_exit",
    metadata,
    Column("trigger_id", BigInteger, ForeignKey("trigger.id"), primary_key=True, autoincrement=False),
    Column("key", LargeBinary, primary_key=True),  # as message.trigger_key
    Column("event_id", BigInteger, ForeignKey("event.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Index(None, "event_id"),
)

run = Table(
    "run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, server_default=text("'campaign'")),
    Column("campaign_id", BigInteger, ForeignKey("campaign.id")),
    Column("trigger_id", BigInteger, ForeignKey("trigger.id")),  # of a standing run: whose version it carries
    Column("name", Text, nullable=False),  # the campaign's name, or for a standing run the trigger's or template's
    Column("occurrence_key", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text),
    Column("class", Text, nullable=False, key="class_"),
    Column("lane", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default=text("50")),
    Column("definition", JSONB, nullable=False),
    Column("segment", JSONB),
    Column("template_hash", Text, ForeignKey("template.hash"), nullable=False),
    Column("tzdata", Text, nullable=False),
    instant("nominal_at", required=True),
    instant("as_of", required=True),
    Column("audience", Integer, nullable=False, server_default=text("0")),
    Column("pages", Integer, nullable=False, server_default=text("0")),
    Column("state", Text, nullable=False),
    Column("started_by", Text),
    Column("client", Text),  # the API key whose program started it, under its own key, with that body
    Column("idempotency_key", Text),
    Column("body_hash", LargeBinary),
    instant("created_at", required=True),
    instant("planned_at"),
    instant("finished_at"),
    instant("watched_from"),  # the brake looks at what was authorised later: the last resume by a human
    Column("brake", JSONB),  # why the brake paused it, until somebody resumes it
    UniqueConstraint("campaign_id", "occurrence_key"),
    UniqueConstraint("trigger_id", "occurrence_key"),
    UniqueConstraint("client", "idempotency_key"),
    Index(
        "run_standing_key",
        "template_hash",
        unique=True,
        postgresql_where=text("kind = 'standing' AND trigger_id IS NULL"),
    ),
    Index(None, "state", postgresql_where=text("finished_at IS NULL")),
    one_of("kind", ("campaign", "standing")),
    one_of("channel", CHANNELS),
    one_of("class", CLASSES),
    one_of("state", ("planning", "running", "paused", "cancelled", "finished", "missed")),
)

audience_page = Table(  # who the segment selected at `as_of`, frozen: a page is planned whole or not at all
    "audience_page",
    metadata,
    Column("run_id", Uuid, ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("page", Integer, primary_key=True, autoincrement=False),
    Column("contact_ids", ARRAY(BigInteger), nullable=False),
    instant("planned_at"),
)
