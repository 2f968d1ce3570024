"""Forms of pages whose address is the permission: read, bounded, and only from where they were shown.

There is no cookie and so nothing that another site could use: whoever posts knows the token.  A browser that says that
a form came from another site is refused all the same.
"""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request

_MOST_FIELDS = 200
_LONGEST_FIELD = 2_000
_HERE = frozenset({"same-origin", "none", ""})


class Form:
    """The fields of a form: text, without control characters, and no longer than anything we ask for."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def one(self, name: str) -> str:
        """Return the field's text; empty if it is not there."""
        value = self._data.get(name)
        return _clean(value) if isinstance(value, str) else ""

    def all(self, name: str) -> list[str]:
        """Return every text of the field, such as boxes that were ticked."""
        return [_clean(value) for value in self._data.getlist(name) if isinstance(value, str)]


async def read_form(request: Request) -> Form:
    """Return what was posted; a body that is no form is an empty one."""
    try:
        return Form(await request.form(max_files=0, max_fields=_MOST_FIELDS))
    except HTTPException:
        return Form(FormData())


def came_from_elsewhere(request: Request) -> bool:
    """Whether the browser says that another site sent this."""
    return request.headers.get("sec-fetch-site", "") not in _HERE


def _clean(value: str) -> str:
    return "".join(character for character in value[:_LONGEST_FIELD] if character.isprintable()).strip()
