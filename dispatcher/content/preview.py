"""One message as its reader would get it, with what it weighs: for `template preview`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.content.check import CLIPPED_BYTES
from dispatcher.content.filters import Sample
from dispatcher.content.sms import sms_segments
from dispatcher.content.template import Content, Template


@dataclass(frozen=True, slots=True)
class Preview:
    """The content, and for a mail the share of what Gmail shows, for an SMS encoding and parts."""

    content: Content
    html_bytes: int = 0
    clipped: bool = False
    encoding: str | None = None
    parts: int = 0


def preview(template: Template, context: Mapping[str, Any], locale: str | None) -> Preview:
    """Return what `context` (`message_context`'s) renders to; raises RenderFailed as sending would.

    A transactional template without `data` shows the names of the fields it would fill in.
    """
    values = context if context["data"] else {**context, "data": Sample(), "event": Sample()}
    content = template.render(values, locale)
    if template.channel == "sms":
        encoding, parts = sms_segments(content.text)
        return Preview(content, encoding=encoding, parts=parts)
    size = len((content.html or "").encode())
    return Preview(content, html_bytes=size, clipped=size > CLIPPED_BYTES)
