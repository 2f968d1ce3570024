"""Keys that rotate, expire and have a limit; runs that are started over the API; campaigns that are edited there."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CHANGES = """
ALTER TABLE api_key
    ADD COLUMN requests_per_minute INTEGER DEFAULT 6000 NOT NULL,
    ADD COLUMN expires_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN previous_hash BYTEA,
    ADD COLUMN previous_until TIMESTAMP WITH TIME ZONE,
    ADD CONSTRAINT api_key_previous_hash_key UNIQUE (previous_hash);

ALTER TABLE campaign
    ADD COLUMN origin TEXT DEFAULT 'workspace' NOT NULL,
    ADD CONSTRAINT campaign_origin_check CHECK (origin IN ('workspace', 'api'));

ALTER TABLE run
    ADD COLUMN client TEXT,
    ADD COLUMN idempotency_key TEXT,
    ADD COLUMN body_hash BYTEA,
    ADD CONSTRAINT run_client_idempotency_key_key UNIQUE (client, idempotency_key);

CREATE INDEX message_asked_for_idx ON message (run_id, id) WHERE client IS NOT NULL;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(CHANGES)


def downgrade() -> None:
    raise RuntimeError("columns of records are not taken away; restore a backup instead")
