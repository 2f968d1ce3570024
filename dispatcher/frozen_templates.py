"""Templates as runs froze them: by content hash, compiled once a process."""

from __future__ import annotations

from sqlalchemy import Connection, text

from dispatcher.content import Template

_MOST_KEPT = 200
_templates: dict[str, Template] = {}


def load_template(connection: Connection, template_hash: str) -> Template:
    """Return the compiled template of this content hash; it never changes, so this process keeps it."""
    if template_hash not in _templates:
        row = connection.execute(
            text("SELECT channel, name, files FROM template WHERE hash = :hash"), {"hash": template_hash}
        ).one()
        if len(_templates) > _MOST_KEPT:
            _templates.clear()
        _templates[template_hash] = Template(row.channel, row.name, row.files)
    return _templates[template_hash]
