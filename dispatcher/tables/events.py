"""What the shop said happened, and what it says of interests."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher.tables.base import instant, metadata

event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False, server_default=text("'shop'")),
    Column("source_key", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False),
    Column("name", Text, nullable=False),
    instant("occurred_at", required=True),
    instant("received_at", stamped=True),
    Column("value", Numeric, nullable=False, server_default=text("0")),
    Column("properties", JSONB, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("source", "source_key"),
    Index(None, "contact_id", "name", "occurred_at"),
    Index(None, "source", "received_at"),
)

event_item = Table(
    "event_item",
    metadata,
    Column("event_id", BigInteger, ForeignKey("event.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("interests", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("quantity", Numeric, nullable=False, server_default=text("1")),
    Column("value", Numeric, nullable=False, server_default=text("0")),
    Column("properties", JSONB, nullable=False, server_default=text("'{}'")),
)

interest = Table(
    "interest",
    metadata,
    Column("contact_id", BigInteger, ForeignKey("contact.id"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    # log2 of the sum of 2^((t - LANDMARK) / half-life) over the items: grows by new items only, never with time.
    Column("log2_mass", Double, nullable=False),
    Column("half_life_days", Double, nullable=False),
    Index(None, "name", "contact_id"),
)
