"""What somebody agreed to: the evidence as it came, and what it amounts to now."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher.tables.base import BASES, CHANNELS, instant, metadata, one_of

consent_event = Table(
    "consent_event",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without a gap: arrival order
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    Column("channel", Text, nullable=False),
    Column("address_id", BigInteger, ForeignKey("address.id")),
    Column("address_hash", LargeBinary),
    Column("topic", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    instant("occurred_at", required=True),
    instant("received_at", required=True),
    Column("source", Text, nullable=False),  # form, page, file hash and line ...: how we know
    Column("wording", JSONB),  # {"id", "hash", "language"}
    Column("opt_in_level", Text),  # single_opt_in, confirmed_opt_in
    Column("basis", Text),  # of a grant: what it rests on
    Column("confirmation", JSONB),  # the confirmation message whose link was used, and that the provider accepted it
    Column("sealed", LargeBinary),  # IP, user agent: under the contact's data key
    Column("order_seq", BigInteger, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Index("consent_event_requests_idx", "address_id", postgresql_where=text("action = 'requested'")),
    one_of("channel", CHANNELS),
    one_of("action", ("requested", "granted", "withdrawn")),
    one_of("actor", ("person", "import", "shop", "operator")),
    one_of("basis", BASES),
)

consent_head = Table(  # the newest piece of evidence, noted beside the chain: an end that was cut off is missed
    "consent_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False),  # 0: there is none yet
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

consent = Table(
    "consent",
    metadata,
    Column("contact_id", BigInteger, ForeignKey("contact.id"), primary_key=True, autoincrement=False),
    Column("channel", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("address_id", BigInteger, ForeignKey("address.id")),  # consent holds for this address only
    Column("state", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False, server_default=text("false")),  # satisfies a double opt-in topic
    Column("basis", Text),  # of a grant
    instant("effective_at", required=True),
    instant("expires_at"),  # of a grant that does not rest on consent; read at decide time
    Column("event_id", BigInteger, ForeignKey("consent_event.id"), nullable=False),
    one_of("channel", CHANNELS),
    one_of("state", ("pending", "granted", "withdrawn")),  # no row: none
    one_of("basis", BASES),
)

unsubscribe = Table(  # one answered request at /u: what it waited for and when it said so
    "unsubscribe",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    Column("address_id", BigInteger, ForeignKey("address.id")),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    instant("committed_at", required=True),
    instant("answered_at"),
    Column("answer", SmallInteger),  # 200 or 202
)
