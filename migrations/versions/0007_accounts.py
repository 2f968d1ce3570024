"""Accounts: rates in the provider's unit, circuits, rates by domain, warm-up.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
ALTER TABLE message ADD COLUMN units SMALLINT;
ALTER TABLE attempt ADD COLUMN units SMALLINT;
ALTER TABLE lane ADD COLUMN turn_until TIMESTAMP WITH TIME ZONE;
ALTER TABLE lane ADD COLUMN line_until TIMESTAMP WITH TIME ZONE;
ALTER TABLE lane ADD COLUMN accounts TEXT[];

CREATE TABLE account (
    name TEXT NOT NULL,
    rate_per_second DOUBLE PRECISION,
    burst INTEGER DEFAULT 1 NOT NULL,
    reserve DOUBLE PRECISION DEFAULT 0 NOT NULL,
    theoretical_arrival_at TIMESTAMP WITH TIME ZONE,
    marketing_arrival_at TIMESTAMP WITH TIME ZONE,
    whole_rate DOUBLE PRECISION,
    lowered_to DOUBLE PRECISION,
    lowered_at TIMESTAMP WITH TIME ZONE,
    circuit TEXT DEFAULT 'closed' NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    openings INTEGER DEFAULT 0 NOT NULL,
    open_until TIMESTAMP WITH TIME ZONE,
    probe_until TIMESTAMP WITH TIME ZONE,
    because TEXT,
    CONSTRAINT account_pkey PRIMARY KEY (name),
    CONSTRAINT account_circuit_check CHECK (circuit IN ('closed', 'open', 'half_open'))
);

CREATE TABLE domain_rate (
    name TEXT NOT NULL,
    rate_per_second DOUBLE PRECISION NOT NULL,
    burst INTEGER NOT NULL,
    theoretical_arrival_at TIMESTAMP WITH TIME ZONE,
    line_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT domain_rate_pkey PRIMARY KEY (name)
);

CREATE TABLE warm_up_day (
    sender TEXT NOT NULL,
    day DATE NOT NULL,
    authorised INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT warm_up_day_pkey PRIMARY KEY (sender, day)
);
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(TABLES)


def downgrade() -> None:
    raise RuntimeError("restore a backup instead")
