"""What people wish for themselves: their own quiet hours, and since when; links to what we know of them."""

from alembic import op

revision = "0005"
down_revision = "0001"
branch_labels = None
depends_on = None

CONTACT = """
ALTER TABLE contact ADD COLUMN paused_seq BIGINT, ADD COLUMN quiet_hours JSONB, ADD COLUMN quiet_hours_seq BIGINT
"""


def upgrade() -> None:
    op.execute(CONTACT)


def downgrade() -> None:
    raise RuntimeError("wishes of people would be lost; restore a backup instead")
