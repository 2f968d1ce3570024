"""What storefronts tell of customers is sorted when no order waits."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE feedback_inbox ADD COLUMN later BOOLEAN DEFAULT false NOT NULL")


def downgrade() -> None:
    raise RuntimeError("columns of records are not taken away; restore a backup instead")
