"""Mail over SMTP: a few connections kept open, one transaction a mail.

Until the final dot is written a server has taken nothing, whatever happens; from then on only its reply tells.
"""

from __future__ import annotations

import queue
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from dispatcher.errors import DispatcherError
from dispatcher.mail import ascii_address, mail_host, to_mime
from dispatcher.providers.protocol import (
    PAST_DEADLINE,
    Accepted,
    Envelope,
    Moment,
    NotSent,
    Receipt,
    Rejected,
    RetryAfter,
    Trial,
    Unknown,
    boot_seconds,
)
from dispatcher.providers.smtp.connection import Connection, Refused, Server
from dispatcher.providers.smtp.replies import Reply, Stage, refusal

_CONNECTIONS = 4  #: of one slice at a time
_MOST_MAILS = 100  #: of a connection, as several services want it
_LONGEST_IDLE_SECONDS = 20.0
_ADDRESS = re.compile(r"\S*@\S*")
_BROKEN = (OSError, smtplib.SMTPException)


class Smtp:
    name = "smtp"
    slice_size = 40  # what the connections of one slice get through well within a send deadline

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def hand_over(self, slice_: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        if len(slice_) == 1:
            return self._some(slice_, moment, deadline)
        shares = [slice_[first::_CONNECTIONS] for first in range(min(_CONNECTIONS, len(slice_)))]
        done = list(self._threads().map(lambda share: self._some(share, moment, deadline), shares))
        return [done[place % _CONNECTIONS][place // _CONNECTIONS] for place in range(len(slice_))]

    def try_account(self, seconds: float) -> list[Trial]:  # noqa: ARG002 - each step has a limit of its own
        """Connect, encrypt, log in, and leave."""
        server = f"{self._server.host}:{self._server.port}"
        try:
            Connection(self._server, name=mail_host(f"@{socket.gethostname()}")).quit()
        except Refused as refused:
            said = f"{server} refuses us at its {refused.stage}: {refused.reply.code}"
            return [Trial(ok=False, detail=said, to_do="correct user, password or scheme of DISPATCHER_SMTP_URL")]
        except ssl.SSLCertVerificationError as error:
            said = f"{server}: the certificate is not good: {error.verify_message.rstrip('.')}"
            return [
                Trial(ok=False, detail=said, to_do="name the server in DISPATCHER_SMTP_URL as its certificate does")
            ]
        except _BROKEN as error:
            said = f"{server} is not there, or left ({type(error).__name__})"
            return [Trial(ok=None, detail=said, to_do="is the port open from here? correct DISPATCHER_SMTP_URL")]
        login = ", takes our login" if self._server.user else ", asks for no login"
        return [Trial(ok=True, detail=f"{server} answers ({self._server.security}){login}")]

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        while not self._idle.empty():
            self._idle.get_nowait().quit()

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max_workers=_CONNECTIONS * 4, thread_name_prefix="smtp")
            return self._pool

    def _some(self, envelopes: Sequence[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        """Hand over one after the other."""
        receipts: list[Receipt] = []
        for envelope in envelopes:
            receipt = self._one(envelope, moment, deadline)
            receipts.append(receipt)
            if isinstance(receipt, RetryAfter) or (isinstance(receipt, Rejected) and receipt.scope == "account"):
                # It would say the same to the others.
                rest = receipt if isinstance(receipt, RetryAfter) else NotSent(receipt.detail)
                return receipts + [rest] * (len(envelopes) - len(receipts))
        return receipts

    def _one(self, envelope: Envelope, moment: Moment, deadline: float) -> Receipt:
        if boot_seconds() >= deadline:
            return NotSent(PAST_DEADLINE)
        try:
            sender, to = ascii_address(envelope.from_email), ascii_address(envelope.to)
            mail = to_mime(
                content=envelope.content,
                headers=envelope.headers,
                from_name=envelope.from_name,
                from_email=envelope.from_email,
                to=envelope.to,
                at=moment.instant(boot_seconds()),
            )
        except DispatcherError as error:
            return Rejected(str(error))
        except UnicodeEncodeError:
            return Rejected("it has half a character, which is no text")
        receipt: Receipt | None = None
        try:
            with self._connection() as connection:
                receipt = _hand_in(connection, sender, to, mail, deadline)
        except Refused as refused:
            return refusal(refused.reply, refused.stage, None)
        except _BROKEN as error:  # with a receipt: it broke afterwards, which changes nothing
            return receipt or NotSent(
                f"the mail server is not there, or left ({type(error).__name__})", unreachable=True
            )
        return receipt

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Lend a connection that answers; it comes back if it is still in order."""
        connection = self._fresh_idle() or Connection(self._server, name=mail_host(f"@{socket.gethostname()}"))
        try:
            yield connection
        except BaseException:
            connection.drop()
            raise
        if not connection.usable:
            connection.drop()
            return
        connection.mails += 1
        connection.idle_since = time.monotonic()
        if connection.mails < _MOST_MAILS:
            self._idle.put(connection)
        else:
            connection.quit()

    def _fresh_idle(self) -> Connection | None:
        """Return an idle connection that its server has not left meanwhile."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return None
            if time.monotonic() - connection.idle_since > _LONGEST_IDLE_SECONDS:
                connection.quit()
            elif connection.is_alive():
                return connection


def _hand_in(connection: Connection, sender: str, to: str, mail: bytes, deadline: float) -> Receipt:
    """Return what became of one mail; OSError or SMTPException if the server left before the final dot."""
    commands: tuple[tuple[Stage, str], ...] = (
        ("mail", f"MAIL FROM:<{sender}>"), ("rcpt", f"RCPT TO:<{to}>"), ("data", "DATA"),
    )  # fmt: skip
    for stage, line in commands:
        reply = connection.command(line, within=deadline - boot_seconds())
        if reply.code < 400 and (reply.code == 354) != (stage == "data"):
            raise smtplib.SMTPServerDisconnected("the server answers something else than was asked")
        if reply.code >= 400:
            _start_over(connection, reply)
            return refusal(reply, stage, None)
    first_byte = boot_seconds()
    if first_byte >= deadline:
        connection.usable = False  # it waits for a mail now
        return NotSent(PAST_DEADLINE)
    connection.write_content(mail)
    if not connection.is_alive():  # it has left, or speaks out of turn: without its end the mail is nothing
        raise smtplib.SMTPServerDisconnected("the server left before the end of the mail")
    try:
        reply = connection.write_end()
    except _BROKEN as error:
        connection.usable = False
        return Unknown(f"no verdict of the mail server ({type(error).__name__})", first_byte)
    if reply.code < 300:
        return Accepted(_ADDRESS.sub("...", reply.words.removeprefix(reply.enhanced)).strip()[:100] or None, first_byte)
    if reply.code < 400:
        connection.usable = False
        return Unknown(f"no verdict of the mail server ({reply.code})", first_byte)
    _start_over(connection, reply)
    return refusal(reply, "content", first_byte)


def _start_over(connection: Connection, reply: Reply) -> None:
    """After a refusal: make room for the next mail, if the server stays."""
    try:
        connection.usable = reply.code != 421 and connection.command("RSET").code == 250
    except _BROKEN:
        connection.usable = False
