"""What came back: from providers, from mail servers, from people."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from dispatcher.tables.base import instant, metadata, one_of

feedback_inbox = Table(  # what came in as it came in, until it is sorted: the sender was told that we have it
    "feedback_inbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("data_key", LargeBinary, nullable=False),  # wrapped; a key of this row alone
    Column("sealed", LargeBinary, nullable=False),
    Column("failures", SmallInteger, nullable=False, server_default=text("0")),
    instant("received_at", required=True),
    instant("retry_at"),
    Column("flaw", Text),  # why nobody can make sense of it: kept for the operator to see, and not tried again
    Column("later", Boolean, nullable=False, server_default=text("false")),  # sorted when nothing else waits
    Index("feedback_inbox_kept_idx", "received_at", postgresql_where=text("flaw IS NOT NULL")),
    one_of("source", ("sendgrid", "twilio.status", "twilio.inbound", "shopify", "woocommerce")),
)

# What providers and mail servers reported, one row per event, also what makes no sense to us.  No foreign keys, as
# in `message`: three checks a row would cost as much as the row, and what they point at is never deleted.
feedback = Table(
    "feedback",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("event_key", LargeBinary, nullable=False),  # keyed hash of what makes the event this event
    Column("provider_event_id", Text),
    Column("kind", Text),  # NULL: nothing that concerns a message
    Column("hard", Boolean),  # of a bounce: the address cannot work
    Column("code", Text),
    Column("message_id", Uuid, index=True),
    Column("contact_id", BigInteger),
    Column("address_id", BigInteger),
    instant("occurred_at", required=True),
    instant("received_at", required=True),
    Column("link", SmallInteger),  # of a click on a link of ours: its number in the message
    Column("bot", Text),  # of such a click: why it was hardly a person's
    Column("flaw", Text),  # why it moved nothing, where it should have
    Column("data_key", LargeBinary),  # wrapped; only where there is no contact whose key would do
    Column("sealed", LargeBinary),  # the event as it came
    UniqueConstraint("source", "event_key"),
    UniqueConstraint("source", "provider_event_id"),
    Index(None, "address_id", "kind", "occurred_at"),
    Index("feedback_complained_idx", "received_at", postgresql_where=text("kind = 'complained'")),
    one_of(
        "kind",
        ("accepted", "delayed", "delivered", "dropped", "bounced", "opened", "clicked", "complained", "unsubscribed"),
    ),
)

reply = Table(  # what somebody texted to us
    "reply",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("provider_event_id", Text, nullable=False),
    Column("address_id", BigInteger, ForeignKey("address.id"), nullable=False, index=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id")),
    Column("reading", Text, nullable=False),
    instant("received_at", required=True),
    Column("answer_id", Uuid, ForeignKey("message.id")),
    Column("review", Text),  # open, then what somebody found it to be
    instant("reviewed_at"),
    Column("reviewed_by", Text),
    Column("data_key", LargeBinary),
    Column("sealed", LargeBinary),
    UniqueConstraint("source", "provider_event_id"),
    Index("reply_open_idx", "id", postgresql_where=text("review = 'open'")),
    one_of("reading", ("stop", "asks_to_stop", "start", "help", "other")),
    one_of("review", ("open", "stop", "not_stop")),
)
