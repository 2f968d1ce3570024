"""A real IMAP server (pymap) in a process of its own, with a certificate that nobody trusts unless told to."""

from __future__ import annotations

import contextlib
import imaplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certificates import write_certificate

USER, PASSWORD = "bounces@shop.example", "pass wörd"


@dataclass(frozen=True)
class Running:
    """One that runs, with STARTTLS at `port`, and with TLS from the first byte at `tls_port`."""

    port: int
    tls_port: int
    certificate: str

    @contextmanager
    def opened(self) -> Iterator[imaplib.IMAP4]:
        """Yield the mailbox, opened as a human would."""
        client = imaplib.IMAP4("localhost", self.port, timeout=10)
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.starttls(ssl.create_default_context(cafile=self.certificate))
        client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())
        client.select("INBOX")
        try:
            yield client
        finally:
            client.logout()

    def put(self, *mails: str) -> None:
        with self.opened() as client:
            for mail in mails:
                assert client.append("INBOX", None, None, mail.replace("\n", "\r\n").encode())[0] == "OK"  # type: ignore[arg-type]

    def flags(self) -> list[set[str]]:
        """Return the flags of each mail, but \\Recent."""
        with self.opened() as client:
            _, lines = client.uid("FETCH", "1:*", "(FLAGS)")
            found = [imaplib.ParseFlags(line) for line in lines if isinstance(line, bytes)]
        return [{flag.decode() for flag in flags} - {"\\Recent"} for flags in found]


@contextmanager
def imap_server(folder: Path) -> Iterator[Running]:
    """Yield a server with one empty mailbox."""
    certificate, key = write_certificate(folder)
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from pymap.main import main; main()", "--host", "localhost", "--port", str(port),
         "--cert", certificate, "--key", key, "dict", "--demo-user", USER, "--demo-password", PASSWORD],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port, process)
        with _tls_in_front(port, certificate, key) as tls_port:
            yield Running(port, tls_port, certificate)
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("localhost", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, "pymap has ended"
            assert time.monotonic() < deadline, "pymap does not listen"
            time.sleep(0.05)


@contextmanager
def _tls_in_front(port: int, certificate: str, key: str) -> Iterator[int]:
    """Yield a port with TLS from the first byte, which pymap does not do itself."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(raw, server_side=True) as client,
            socket.create_connection(("localhost", port)) as behind,
        ):
            for end in (client, behind):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=carry, args=(behind, client), daemon=True)
            back.start()
            carry(client, behind)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
