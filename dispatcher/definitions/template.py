"""meta.yaml of a template."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dispatcher.definitions.common import Definition, Name


class TemplateMeta(Definition):
    """templates/<channel>/<name>/meta.yaml: the only place that says which rules a message is under."""

    class_: Annotated[Literal["marketing", "transactional", "security"], Field(alias="class")]
    topic: Name | None = None
    urgent: bool = False  # a transactional SMS that may break quiet hours

    @model_validator(mode="after")
    def _marketing_has_a_topic(self) -> TemplateMeta:
        if self.class_ == "marketing" and self.topic is None:
            raise ValueError("a marketing template needs a topic: it is what the unsubscribe link withdraws")
        return self
