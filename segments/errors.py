"""What is wrong with a text that people wrote; each finding is one line with file, line and field."""

from __future__ import annotations


class InvalidDocument(ValueError):  # noqa: N818 - says what it is about, like the errors of the other rooms
    """A YAML file cannot be read as plain data, or does not say what its kind of file must say."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class InvalidSegment(InvalidDocument):
    """A segment's definition does not follow the language."""
