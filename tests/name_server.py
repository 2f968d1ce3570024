"""A small DNS server on this machine, over UDP: it knows what it is told, and can be told to be silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class NameServer:
    """Its records by name and kind, as a zone file writes them; change them at any time."""

    address: str = ""
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    silent: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    def text(self, name: str, *values: str) -> None:
        """Set the TXT records of a name; long ones are cut into strings of 255, as in any zone."""
        self.records[name, "TXT"] = [
            " ".join(f'"{value[start : start + 255]}"' for start in range(0, len(value) or 1, 255)).replace(";", "\\;")
            for value in values
        ]

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query, recursion_available=True)
        answer.flags |= dns.flags.RA
        found = self.records.get((name, kind))
        if found:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
        elif not any(known == name or known.endswith(f".{name}") for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer


@contextmanager
def name_server(texts: Mapping[str, str | Sequence[str]] | None = None) -> Iterator[NameServer]:
    """Yield a server that listens at its `address`; `texts` are TXT records by name."""
    server = NameServer()
    for name, values in (texts or {}).items():
        server.text(name, *([values] if isinstance(values, str) else values))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        server.address = f"127.0.0.1:{sock.getsockname()[1]}"

        def serve() -> None:
            with suppress(OSError):
                while True:
                    wire, sender = sock.recvfrom(4096)
                    if wire == b"end":
                        return
                    if not server.silent:
                        answer = server.answer(dns.message.from_wire(wire))
                        sock.sendto(answer.to_wire(max_size=65_535), sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", sock.getsockname())
            thread.join(timeout=10)
