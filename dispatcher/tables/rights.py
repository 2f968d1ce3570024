"""What people may ask of us, and what keeps our own record of it honest."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
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

from dispatcher.tables.base import instant, metadata

erasure = Table(  # one for each person who was erased, from the request on
    "erasure",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, unique=True),
    instant("requested_at", required=True),
    Column("requested_by", Text, nullable=False),
    Column("order_seq", BigInteger, nullable=False),  # nothing of theirs is authorised later
    instant("done_at"),  # NULL: in progress
    Column("proof", JSONB),  # what was destroyed, in figures
    Index("erasure_open_idx", "id", postgresql_where=text("done_at IS NULL")),
)

audit_link = Table(  # the chain over `audit`, forged behind it: who records an entry never waits for who else does
    "audit_link",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without a gap
    Column("audit_id", BigInteger, ForeignKey("audit.id"), nullable=False, unique=True),
    instant("linked_at", stamped=True),
    Column("hash", LargeBinary, nullable=False),  # over the one before it and the entry
)

audit_head = Table(  # the newest link, noted beside the chain: an end that was cut off is missed
    "audit_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),  # 0: there is none yet
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)
