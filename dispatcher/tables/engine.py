"""The house itself: its one row of settings, who works in it, who may knock, and who did what."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher.tables.base import instant, metadata

engine = Table(
    "engine",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("clock_offset", Interval, nullable=False, server_default=text("'0'")),
    instant("stopped_at"),
    Column("stopped_by", Text),
    Column("key_fingerprints", JSONB, nullable=False, server_default=text("'[]'")),
    Column("hash_key", LargeBinary),  # wrapped by the newest of SECRET_KEYS; kept while an address row needs it
    Column("tzdata", Text),  # the zone rules that the last process started with
    Column("shop", JSONB),  # what `apply` read from dispatcher.toml: definitions.Shop
    CheckConstraint("id = 1", name="single"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),  # host name and boot id: only there can its death be proved
    Column("pid", Integer, nullable=False),
    Column("lock_path", Text, nullable=False),  # held by flock for life: the kernel drops it on death, never on pause
    Column("queues", ARRAY(Text), nullable=False),
    Column("slots", Integer, nullable=False),
    instant("started_at", stamped=True),
    instant("heartbeat_at", stamped=True),
    instant("ended_at"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("requests_per_minute", Integer, nullable=False, server_default=text("6000")),
    instant("created_at", stamped=True),
    instant("last_used_at"),
    instant("expires_at"),
    instant("revoked_at"),
    Column("previous_hash", LargeBinary, unique=True),  # of the secret before the last rotation ...
    instant("previous_until"),  # ... which opens until then
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    instant("at", stamped=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    Index(None, "action", "id"),
    Index(None, "subject", "id"),
)

# What processes have counted for /metrics and no row of the ledger says: each adds to it every few seconds, in the
# order of the key.  Sums only rise, whoever dies.
figure = Table(
    "figure",
    metadata,
    Column("name", Text, primary_key=True),
    Column("labels", ARRAY(Text), primary_key=True),
    Column("value", Double, nullable=False, server_default=text("0")),
    postgresql_with={"fillfactor": 50},  # rows are changed in place
)
