"""Debian's postfix and its smtp-sink, where they are installed: in processes and folders of their own, on this machine.

`apt-get install --no-install-recommends postfix` (answer "No configuration") brings both; nothing of its own
configuration is used or changed.  A postfix must be started by root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_SBIN = "/usr/sbin:/usr/local/sbin:/sbin"
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = mail.small.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
virtual_mailbox_domains = inline:{{small.example=x, people.example=x}}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{hello@small.example=bounces/, @people.example=people/}}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 100
alias_maps =
alias_database =
transport_maps = inline:{{{{far.example = smtp:[127.0.0.1]:{far}}}}}
smtpd_recipient_restrictions = permit_mynetworks, reject
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
virtual unix - n n - - virtual
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        pytest.skip(f"{name} is not installed here (Debian's package postfix)")
    return found


@contextmanager
def _folder() -> Iterator[Path]:
    """Yield a folder that other users of this machine can pass through, as pytest's own cannot."""
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-postfix-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text() if log.exists() else "it does not listen"
            time.sleep(0.05)


def _give_to(folder: Path, user: str) -> pwd.struct_passwd:
    folder.mkdir()
    account = pwd.getpwnam(user)
    os.chown(folder, account.pw_uid, account.pw_gid)
    return account


@dataclass(frozen=True)
class Sink:
    """smtp-sink at a port; each mail it takes becomes a file."""

    port: int
    folder: Path

    def taken(self) -> list[bytes]:
        """Return the mails, each with the lines that smtp-sink puts in front of it."""
        return [file.read_bytes() for file in sorted(self.folder.iterdir())]


@contextmanager
def smtp_sink(port: int, *arguments: str) -> Iterator[Sink]:
    """Yield an smtp-sink, or skip the test where there is none."""
    program = _program("smtp-sink")
    with _folder() as folder:
        mails = folder / "mails"
        as_nobody: tuple[str, ...] = ()
        if os.geteuid() == 0:
            _give_to(mails, "nobody")
            as_nobody = ("-u", "nobody")
        else:
            mails.mkdir()
        log = folder / "log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                [program, *as_nobody, *arguments, "-d", f"{mails}/%s.", f"127.0.0.1:{port}", "100"],
                stdout=written, stderr=written,
            )  # fmt: skip
        try:
            _wait_for(port, log)
            yield Sink(port, mails)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Postfix:
    """A postfix at a port: it delivers for people.example, relays for far.example, and returns bounces to `bounces`."""

    port: int
    people: Path  #: a maildir
    bounces: Path  #: a maildir


@contextmanager
def postfix(port: int, far: int) -> Iterator[Postfix]:
    """Yield a real postfix that relays far.example to the port `far`; skip where it cannot be."""
    program, configure = _program("postfix"), _program("postconf")
    if os.geteuid() != 0:
        pytest.skip("only root can start a postfix")
    daemons = subprocess.run([configure, "-h", "-d", "daemon_directory"], capture_output=True, text=True, check=True)
    with _folder() as folder:
        (folder / "queue").mkdir()
        _give_to(folder / "data", "postfix")
        nobody = _give_to(folder / "mail", "nobody")
        settings = folder / "conf"
        settings.mkdir()
        (settings / "main.cf").write_text(
            _MAIN.format(folder=folder, daemons=daemons.stdout.strip(), uid=nobody.pw_uid, gid=nobody.pw_gid, far=far)
        )
        (settings / "master.cf").write_text(_MASTER.format(port=port))
        subprocess.run([program, "-c", str(settings), "start"], check=True, capture_output=True)
        try:
            _wait_for(port, folder / "mail.log")
            yield Postfix(port, folder / "mail" / "people", folder / "mail" / "bounces")
        finally:
            subprocess.run([program, "-c", str(settings), "stop"], check=False, capture_output=True)
