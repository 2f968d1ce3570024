"""What processes have counted, for /metrics; and campaigns that could not be fired."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

FIGURES = """
CREATE TABLE figure (
    name text NOT NULL,
    labels text[] NOT NULL,
    value double precision DEFAULT 0 NOT NULL,
    CONSTRAINT figure_pkey PRIMARY KEY (name, labels)
) WITH (fillfactor = 50);
"""

NOT_FIRED = """
ALTER TABLE campaign
    ADD COLUMN fire_error text,
    ADD COLUMN fire_failures integer DEFAULT 0 NOT NULL,
    ADD COLUMN fire_failed_at timestamp with time zone,
    ADD COLUMN fire_retry_at timestamp with time zone;
"""


def upgrade() -> None:
    for part in (FIGURES, NOT_FIRED):
        op.get_bind().connection.cursor().execute(part)


def downgrade() -> None:
    raise RuntimeError("what was counted would be lost; restore a backup instead")
