"""Cut the demo's shop out of the whole data set: python cut.py FOLDER_OF_ONLINE_RETAIL [TARGET]

Every line and every contact is copied as it is; only who is in is decided here, by hash, so that the same files come
out every time.  Prints the lines of README.md that name the files.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

QUARTERS = ("2011q3", "2011q4")
FAR_AWAY = {"AU", "BR", "CA", "JP", "SG", "US", ""}  # night there at noon in London, or no place known


def share(key: str, parts: int) -> bool:
    """Whether this key is in the one of `parts` shares that the demo has."""
    return int.from_bytes(hashlib.sha256(f"examples/shop|{key}".encode()).digest()[:8]) % parts == 0


def order_lines(source: Path) -> Iterator[str]:
    """Yield the header, then every line of the quarters as it is written."""
    for number, quarter in enumerate(QUARTERS):
        with gzip.open(source / f"orders-{quarter}.csv.gz", "rt", encoding="utf-8", newline="") as file:
            header = next(file)
            if number == 0:
                yield header
            yield from file


def customer_of(line: str) -> tuple[str, str]:
    """Return the invoice and the customer ("" for a guest) of one line."""
    cells = next(csv.reader([line]))
    return cells[0], cells[6].removesuffix(".0")


def choose(contacts: list[dict[str, str]], ordered: set[str]) -> set[str]:
    """Return who is in.

    Of those who ordered: half of those abroad, a quarter of those with SMS consent, an eighth of the others.  Besides,
    all who live far away, ordered or not, and all whose mailbox is known under two customer numbers.
    """
    mailboxes = defaultdict(set)
    for contact in contacts:
        if contact["email"]:
            mailboxes[contact["email"].lower()].add(contact["contact_id"])
    shared = [ids for ids in mailboxes.values() if len(ids) > 1 and ids & ordered]
    chosen = {contact for ids in shared for contact in ids}
    for contact in contacts:
        name = contact["contact_id"]
        parts = 2 if contact["country"] != "GB" else 4 if contact["sms_consent"] == "subscribed" else 8
        if contact["country"] in FAR_AWAY or (name in ordered and share(name, parts)):
            chosen.add(name)
    return chosen


def write(path: Path, lines: list[str]) -> None:
    content = "".join(lines).encode()
    path.write_bytes(gzip.compress(content, 9, mtime=0) if path.suffix == ".gz" else content)


def main(source: Path, target: Path) -> None:
    with (source / "contacts.csv").open(encoding="utf-8", newline="") as file:
        contact_lines = list(file)
    contacts = list(csv.DictReader(contact_lines))
    lines = list(order_lines(source))
    ordered = {customer for _, customer in map(customer_of, lines[1:]) if customer}
    chosen = choose(contacts, ordered)
    kept = [
        line
        for line in lines[1:]
        for invoice, customer in (customer_of(line),)
        if (customer in chosen if customer else share(f"inv:{invoice}", 20))
    ]
    write(target / "orders.csv.gz", [lines[0], *kept])
    rows = zip(contact_lines[1:], contacts, strict=True)
    write(target / "contacts.csv", [contact_lines[0], *(line for line, row in rows if row["contact_id"] in chosen)])
    print(f"{len(chosen)} customers, {len(kept)} order lines of {' and '.join(QUARTERS)}")
    for name in ("contacts.csv", "orders.csv.gz"):
        print(f"{hashlib.sha256((target / name).read_bytes()).hexdigest()}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
