"""A look into a mailbox over IMAP (RFC 3501), on imaplib: TLS verified, every wait limited."""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar
from urllib.parse import unquote, urlsplit

from dispatcher.errors import DispatcherError
from dispatcher.providers.protocol import without_addresses

Result = TypeVar("Result")

#: For a connection, and for each part of an answer.
ANSWER_SECONDS = 30.0
LARGEST_MAIL = 25 * 1024 * 1024
#: A server names so many numbers at most in one answer: imaplib takes a line of a million characters.
_NUMBERS_AT_ONCE = 20_000

_SIZE = re.compile(rb"\bUID (\d+)\b|\bRFC822\.SIZE (\d+)\b")
_SCHEMES: dict[str, tuple[Literal["tls", "starttls", "none"], int]] = {
    "imaps": ("tls", 993), "imap+starttls": ("starttls", 143), "imap": ("none", 143),
}  # fmt: skip


class MailboxAway(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """The mailbox cannot be reached, or does not let us in; says which, without the password."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where it is, and as whom to open it."""

    host: str
    port: int
    security: Literal["tls", "starttls", "none"]
    user: str
    password: str = field(repr=False)
    folder: str = "INBOX"

    @property
    def name(self) -> str:
        """What it is kept under, and shown as: no password in it."""
        return f"{self.user}@{self.host}:{self.port}/{self.folder}"


def mailbox_at(url: str) -> Mailbox:
    """Return the mailbox that imaps://user:password@host/INBOX names; the settings have looked at the address."""
    parts = urlsplit(url)
    security, port = _SCHEMES[parts.scheme]
    return Mailbox(
        parts.hostname or "", parts.port or port, security, unquote(parts.username or ""),
        unquote(parts.password or ""), unquote(parts.path.strip("/")) or "INBOX",
    )  # fmt: skip


class Imap:
    """An open mailbox; every way in which it may fail is a MailboxAway."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.uid_validity = 0
        self.uid_next = 1  #: the next mail's number

    def __enter__(self) -> Self:
        self._client = self._try("connect", self._connect)
        try:
            self._try("login", self._login)
            self._try("open the folder", self._open)
        except BaseException:
            _close(self._client)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._client.logout()
                return
        except (OSError, imaplib.IMAP4.error):  # everything was committed
            pass
        _close(self._client)

    def numbers_after(self, last: int, most: int) -> Iterator[list[int]]:
        """Yield the numbers of the mails after `last` that were there when it was opened, rising, so many at once."""
        for begin in range(last + 1, self.uid_next, _NUMBERS_AT_ONCE):
            end = min(begin + _NUMBERS_AT_ONCE, self.uid_next) - 1
            answer = self._ask("SEARCH", "UID", f"{begin}:{end}")
            numbers = sorted({int(word) for line in answer if line for word in line.split()})
            numbers = [number for number in numbers if begin <= number <= end]
            for place in range(0, len(numbers), most):
                yield numbers[place : place + most]

    def sizes(self, uids: Sequence[int]) -> dict[int, int]:
        """Return the size in bytes of each mail that is still there."""
        found = {}
        for line in self._ask("FETCH", _set_of(uids), "(UID RFC822.SIZE)"):
            fields = _SIZE.findall(line if isinstance(line, bytes) else b"")
            uid = next((int(uid) for uid, _ in fields if uid), None)
            size = next((int(size) for _, size in fields if size), None)
            if uid is not None and size is not None:
                found[uid] = size
        return found

    def fetch(self, uid: int) -> bytes | None:
        """Return a mail as it is, and leave it unread; None if it is gone."""
        answer = self._ask("FETCH", str(uid), "(UID BODY.PEEK[])")
        return next((bytes(part[1]) for part in answer if isinstance(part, tuple)), None)

    def mark(self, uids: Sequence[int], flag: str) -> None:
        """Give these mails a flag, if there are any."""
        if uids:
            self._ask("STORE", _set_of(uids), "+FLAGS.SILENT", f"({flag})")

    def _connect(self) -> imaplib.IMAP4:
        host, port, context = self._mailbox.host, self._mailbox.port, ssl.create_default_context()
        if self._mailbox.security == "tls":
            return imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=ANSWER_SECONDS)
        client = imaplib.IMAP4(host, port, timeout=ANSWER_SECONDS)
        if self._mailbox.security == "starttls":
            try:
                client.starttls(context)
            except BaseException:  # a server that does not offer it gets no password
                _close(client)
                raise
        return client

    def _login(self) -> None:
        user, password = self._mailbox.user, self._mailbox.password
        if "AUTH=PLAIN" in self._client.capabilities:  # takes any letters; LOGIN only ASCII
            self._client.authenticate("PLAIN", lambda _: f"\0{user}\0{password}".encode())
        else:
            self._client.login(user, password)

    def _open(self) -> None:
        folder = self._mailbox.folder.replace("\\", "\\\\").replace('"', '\\"')
        said, words = self._client.select(f'"{folder}"')
        if said != "OK":
            raise imaplib.IMAP4.error(words[0])
        self.uid_validity = self._number("UIDVALIDITY")
        self.uid_next = self._number("UIDNEXT")

    def _number(self, name: str) -> int:
        _, values = self._client.response(name)
        if not values or values[0] is None:
            raise imaplib.IMAP4.error(f"the server says no {name}")
        return int(values[0])

    def _ask(self, command: str, *arguments: str) -> list[Any]:
        def ask() -> list[Any]:
            said, answer = self._client.uid(command, *arguments)
            if said != "OK":
                raise imaplib.IMAP4.error(f"{command} was refused")
            return [part for part in answer if part is not None]

        return self._try(command, ask)

    def _try(self, doing: str, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except ssl.SSLError as error:
            raise MailboxAway(f"{self._where}: TLS failed ({error.reason or type(error).__name__})") from None
        except imaplib.IMAP4.error as error:
            words = error.args[0] if error.args else ""
            words = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
            raise MailboxAway(f"{self._where} refuses to {doing}: {self._cleared(words)}") from None
        except (OSError, ValueError) as error:
            raise MailboxAway(f"{self._where} cannot be reached ({type(error).__name__} at {doing})") from None

    @property
    def _where(self) -> str:
        return f"the mailbox at {self._mailbox.host}:{self._mailbox.port}"

    def _cleared(self, words: str) -> str:
        """Return the server's words without whatever is not for a log."""
        password = self._mailbox.password
        return without_addresses(words.replace(password, "***") if password else words)


def _close(client: imaplib.IMAP4) -> None:
    with suppress(OSError):  # it is closed already
        client.shutdown()


def _set_of(uids: Sequence[int]) -> str:
    return ",".join(map(str, uids))
