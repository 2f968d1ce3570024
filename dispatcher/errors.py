"""One root for every error we foresee; its text is the one clear line the user reads."""

from __future__ import annotations


class DispatcherError(Exception):
    """Something was refused or failed; the message says what, and what to do."""


class NotFound(DispatcherError):  # noqa: N818 - named for what it says
    """No record of that name."""


class Refused(DispatcherError):  # noqa: N818 - named for what it says
    """Understood, and not done."""


class InvalidDefinition(DispatcherError):  # noqa: N818 - named for what it says
    """A file of the workspace does not say something we can follow; carries every finding, a line each."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class Conflict(Refused):
    """It does not go with how things stand: a run that is over cannot be paused."""


class Changed(Refused):
    """What was to be changed is not any more what the caller has seen."""


class InvalidFields(Refused):
    """Some fields cannot be taken; each with the reason, without what was sent."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in fields))
        self.fields = fields
