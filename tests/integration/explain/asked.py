"""How the tests ask for an explanation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from crowd import plan
from small_workspace import FILES
from sqlalchemy import Engine, text

NOON = datetime(2030, 5, 7, 12, tzinfo=UTC)
FILES_HERE = {
    "segments/everybody.yaml": "name: everybody\nmatch: {not: {attribute: country, in: [DE]}}\n",
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n",
    "campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again"),
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }} {{ unsubscribe_url }}\n",
}


def gate(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["gates"] if one["gate"] == name)


def _sent(shop: Engine, campaign: str, at: datetime) -> UUID:
    """Return the message of a run of `campaign` that was sent to `agreed` at that instant."""
    run_id = plan(shop, campaign)
    with shop.begin() as connection:
        for status in ("sending", "sent"):
            connection.execute(
                text("""UPDATE message SET status = :status, batch_id = NULL, authorised_at = :at, handed_over_at = :at,
                               settled_at = :at, provider = 'sandbox' WHERE run_id = :run"""),
                {"status": status, "at": at, "run": run_id},
            )
        return UUID(str(connection.scalar(text("SELECT id FROM message WHERE run_id = :run"), {"run": run_id})))
