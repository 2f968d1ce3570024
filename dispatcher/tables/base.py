"""What every table is made with: names of constraints, instants, closed lists of words."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    MetaData,
    Sequence,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

CHANNELS = ("email", "sms")
CLASSES = ("marketing", "transactional", "security")
BASES = ("consent", "soft_opt_in", "implied_purchase", "implied_inquiry")


def instant(name: str, *, required: bool = False, stamped: bool = False) -> Column[object]:
    """A UTC instant; `stamped` fills it with the database's own clock."""
    default = text("clock_timestamp()") if stamped else None
    return Column(name, DateTime(timezone=True), nullable=not (required or stamped), server_default=default)


def one_of(name: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{name} IN ({', '.join(repr(v) for v in values)})", name=name)


#: One line of order for everything that must be compared across tables: an authorisation and a withdrawal draw from it
#: while they hold the same row locks, so the smaller number really came first.
order_seq = Sequence("order_seq", metadata=metadata)
