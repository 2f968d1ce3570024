"""Whom we write to, and at which addresses.  An address outlives its contact, and so does its suppression."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher.tables.base import CHANNELS, instant, metadata, one_of

address = Table(
    "address",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("channel", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # keys.KeyRing.address_hash
    Column("state", Text, nullable=False, server_default=text("'ok'")),
    instant("created_at", stamped=True),
    UniqueConstraint("channel", "hash"),
    one_of("channel", CHANNELS),
    one_of("state", ("ok", "bad")),
)

contact = Table(
    "contact",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("external_id", Text, nullable=False, unique=True),  # the first of its aliases
    Column("locale", Text),
    Column("country", Text),  # ISO 3166-1 alpha-2
    Column("subdivision", Text),  # ISO 3166-2 without the country
    Column("zone", Text),  # IANA zone stated by or for the contact
    Column("phone_region", Text),  # what the number says of a place: places.tables.phone_region
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'")),
    Column("data_key", LargeBinary),  # wrapped; NULL once erased
    Column("sealed", LargeBinary),  # personal fields: keys.Personal
    Column("email_address_id", BigInteger, ForeignKey("address.id")),
    Column("sms_address_id", BigInteger, ForeignKey("address.id")),
    Column("version", Integer, nullable=False, server_default=text("1")),  # rises with every change that rendering sees
    Column("merged_into", BigInteger, ForeignKey("contact.id")),
    instant("paused_until"),  # no marketing before: the person asked for it
    Column("paused_seq", BigInteger),  # order_seq of that wish: authorisations before it did not know of it
    Column("quiet_hours", JSONB),  # the person's own: own_hours
    Column("quiet_hours_seq", BigInteger),
    instant("erased_at"),
    instant("created_at", stamped=True),
    Index(None, "email_address_id"),
    Index(None, "sms_address_id"),
    Index(None, "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
)

contact_alias = Table(
    "contact_alias",
    metadata,
    Column("external_id", Text, primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    instant("created_at", stamped=True),
)

data_link = Table(  # a link by which somebody may see, correct, take along or erase what we know of them
    "data_link",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    Column("address_id", BigInteger, ForeignKey("address.id"), nullable=False),  # where it was sent to
    Column("channel", Text, nullable=False),
    instant("asked_at", required=True),
    instant("expires_at", required=True),
    Column("opened_by", LargeBinary),  # SHA-256 of what the one browser knows that pressed the button first
    instant("opened_at"),
    instant("ended_at"),  # used for the last time: erased
    one_of("channel", CHANNELS),
)

suppression = Table(
    "suppression",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("address_id", BigInteger, ForeignKey("address.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("order_seq", BigInteger, nullable=False),
    instant("created_at", required=True),
    UniqueConstraint("address_id", "reason"),
    one_of("reason", ("hard_bounce", "invalid", "complaint", "unsubscribe", "stop", "operator", "erasure")),
    one_of("scope", ("all", "marketing")),
)
