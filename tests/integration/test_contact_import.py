"""Importing contacts: real files, hostile files, and the same file again."""

from __future__ import annotations

import csv
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from dispatcher import clock, consent, locks
from dispatcher.contacts import ensure_contacts, find_contact, personal_of
from dispatcher.errors import DispatcherError, Refused
from dispatcher.imports.contacts import ContactReport, import_contacts
from dispatcher.keys import KeyRing

TOPICS = {"email": ["offers", "news"], "sms": ["offers"]}
HEADER = "contact_id,first_name,email,phone,country,email_consent,email_consent_at,sms_consent,sms_consent_at\n"


class Shop:
    """A ledger to import into, and a look at it."""

    def __init__(self, database: Engine, key_ring: KeyRing, folder: Path) -> None:
        self.database, self.key_ring, self.folder = database, key_ring, folder
        self.rejects = folder / "rejected.csv"

    def take(self, path: Path, **options: object) -> ContactReport:
        report = import_contacts(
            self.database, self.key_ring, path, rejects=self.rejects, **{"topics": TOPICS, **options}  # type: ignore[arg-type]
        )  # fmt: skip
        accounted = report.created + report.changed + report.unchanged + report.merged + report.rejected + report.erased
        assert report.read == accounted
        return report

    def take_text(self, rows: str, header: str = HEADER, **options: object) -> ContactReport:
        path = self.folder / "contacts.csv"
        path.write_text(header + rows, encoding="utf-8")
        return self.take(path, **options)

    def scalar(self, query: str) -> object:
        with self.database.connect() as connection:
            return connection.scalar(text(query))

    def state(self, contact: str, topic: str = "offers", channel: str = "email") -> str | None:
        with self.database.connect() as connection:
            held = consent.state_of(connection, find_contact(connection, self.key_ring, contact))
        return next((one.state for one in held if (one.channel, one.topic) == (channel, topic)), None)

    def rejected(self) -> list[list[str]]:
        if not self.rejects.exists():
            return []
        with self.rejects.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))[1:]

    def everything(self) -> list[object]:
        tables = ("contact", "contact_alias", "address", "consent", "consent_event")
        with self.database.connect() as connection:
            return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3")).all() for table in tables]


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Shop:
    return Shop(database, key_ring, tmp_path)


@pytest.mark.parametrize(
    ("folder", "customers", "contacts"), [("online-retail", 2_913, 2_869), ("complete-journey", 1_103, 1_089)]
)
def test_a_real_shop_comes_in_whole_and_a_second_time_changes_nothing(
    shared: Path, shop: Shop, folder: str, customers: int, contacts: int
) -> None:
    path = shared / "data" / folder / "contacts.csv"

    first = shop.take(path)
    before = shop.everything()
    again = shop.take(path)
    copy = shop.folder / "copy.csv"
    copy.write_bytes(path.read_bytes() + b"\n")  # the same evidence in another file is the same evidence
    third = shop.take(copy)

    assert (first.created, first.merged, first.rejected, first.notes) == (contacts, customers - contacts, 0, 0)
    assert (again.unchanged, again.evidence) == (third.unchanged, third.evidence) == (customers, 0)
    assert shop.everything() == before
    assert shop.scalar("SELECT count(*) FROM contact_alias") == customers
    assert first.ignored_columns == ["country_source", "first_order_at"]
    _check_consents(shop, path)


def _check_consents(shop: Shop, path: Path) -> None:
    """What the file says, told apart from the product: one mailbox is one person, who has the first phone given; a
    withdrawal wins, whatever it was said of, then a grant for that address, then a request."""
    said: dict[tuple[str, str], set[str]] = {}
    person: dict[str, str] = {}
    phone: dict[str, str] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = person.setdefault(row["email"].lower() or row["contact_id"], row["contact_id"])
            if row["phone"]:
                phone.setdefault(key, row["phone"])
            for channel in ("email", "sms"):
                word = row[f"{channel}_consent"]
                if channel == "email" or word == "unsubscribed" or row["phone"] == phone.get(key):
                    said.setdefault((key, channel), set()).add(word)
    words = {"unsubscribed": "withdrawn", "subscribed": "granted", "pending": "pending"}
    expected = {key: next((words[word] for word in words if word in states), None) for key, states in said.items()}
    with shop.database.connect() as connection:
        rows = connection.execute(
            text("SELECT c.external_id, k.channel, k.state FROM consent k JOIN contact c ON c.id = k.contact_id "
                 "WHERE k.topic = 'offers'")
        )  # fmt: skip
        found = {(external_id, channel): state for external_id, channel, state in rows}
        assert consent.verify_chain(connection) == []
    assert found == {key: state for key, state in expected.items() if state}


def test_the_check_row_is_as_described(shared: Path, shop: Shop) -> None:
    shop.take(shared / "data/online-retail/contacts.csv")

    with shop.database.connect() as connection:
        contact_id = find_contact(connection, shop.key_ring, "CAROLINE.mejia+shop@yahoo.example")
        personal = personal_of(connection, shop.key_ring, contact_id)
        held = {(h.channel, h.topic): h for h in consent.state_of(connection, contact_id)}
        row = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": contact_id}).one()
    assert (personal.first_name, personal.last_name, personal.phone) == ("Caroline", "Mejia", "+61491570156")
    assert (row.external_id, row.country, row.zone) == ("12386", "AU", "Australia/Adelaide")
    mail = held["email", "news"]
    assert (mail.state, mail.confirmed, mail.effective_at.isoformat()) == (
        "granted",
        False,
        "2010-12-08T10:58:55+00:00",
    )
    assert mail.source.startswith("signup_form (file:")
    assert (held["sms", "offers"].state, held["sms", "offers"].effective_at.isoformat()) == (
        "withdrawn", "2011-02-24T10:58:55+00:00",
    )  # fmt: skip


def test_orders_first_and_contacts_after_make_the_same_people(shared: Path, shop: Shop) -> None:
    path = shared / "data/complete-journey/contacts.csv"
    with path.open(encoding="utf-8") as file:
        ids = [row["contact_id"] for row in csv.DictReader(file)]
    with shop.database.begin() as connection:
        ensure_contacts(connection, shop.key_ring, ids)

    report = shop.take(path)

    assert (report.created, report.merged) == (0, 1_103 - 1_089)
    assert shop.scalar("SELECT count(*) FROM contact WHERE merged_into IS NULL") == 1_089
    assert shop.take(path).unchanged == 1_103


def test_every_hostile_file_gives_an_answer_and_no_good_row_is_lost(shared: Path, shop: Shop) -> None:
    folder = shared / "data/csv-torture"
    answers: dict[str, ContactReport | str] = {}
    for path in sorted(folder.rglob("*.csv")):
        name = path.relative_to(folder).as_posix()
        mapping = {"Email": "email"} if "shopify" in name else None
        try:
            answers[name] = shop.take(path, mapping=mapping)
        except DispatcherError as error:
            answers[name] = str(error)

    counts = {
        n.removeprefix("contacts/"): (a.read, a.rejected) for n, a in answers.items() if isinstance(a, ContactReport)
    }
    assert counts == {
        "cp1252_semicolon_crlf.csv": (60, 0),
        "header_only.csv": (0, 0),
        "mac_cr_only.csv": (60, 0),
        "mixed_encoding_rows.csv": (20, 0),
        "nul_bytes.csv": (5, 0),
        "ragged_and_unterminated.csv": (19, 4),
        "shopify_customer_export_messy.csv": (36, 2),  # two without an address, in a file without ids
        "utf16le_bom_tab_crlf.csv": (60, 0),
        "utf8_all_quoted_lf.csv": (60, 0),
        "utf8_bom_semicolon_crlf.csv": (60, 0),
    }
    refusals = [answer for answer in answers.values() if isinstance(answer, str)]
    assert all("\n" not in answer for answer in refusals)
    assert any("more than one column is called email" in answer for answer in refusals)


def test_bad_cells_do_not_cost_the_contact(shop: Shop) -> None:
    report = shop.take_text(
        "1,Ann,not an address,+447700900123,GB,subscribed,2026-01-01T00:00:00Z,subscribed,2026-01-01T00:00:00Z\n"
        "2,Bob,bob@shop.example,12,XX,subscribed,yesterday,subscribed,\n"
        ",Cy,cy@shop.example,,,,,,\n"
        "4,Dee,dee@shop.example,,,maybe,,,\n"
    )

    assert (report.created, report.rejected, report.notes) == (3, 1, 5)
    assert report.left_out == {"email consent without an address": 1, "sms consent without an address": 1}
    assert [(line, reason) for line, reason, *_ in shop.rejected()] == [
        ("2", "email is not an e-mail address: it needs exactly one @; the contact was taken in without it"),
        (
            "3",
            "country is not a two-letter country code (ISO 3166-1); the contact was taken in without it; "
            "phone is a phone number without a country code, and the contact's country is not known; "
            "the contact was taken in without it; "
            "email_consent_at is not a time (ISO 8601, like 2026-12-01T10:00:00Z); the contact was taken in without it",
        ),
        ("4", "contact_id is empty"),
        ("5", "email_consent is not a state we know, so it counts as none"),
    ]
    assert (shop.state("1", channel="sms"), shop.state("2"), shop.state("4")) == ("granted", "granted", None)


def test_a_withdrawal_is_never_undone_by_a_file(shop: Shop) -> None:
    shop.take_text("1,Ann,ann@shop.example,,,subscribed,2026-01-01T00:00:00Z,,\n")
    with shop.database.begin() as connection:
        contact_id = find_contact(connection, shop.key_ring, "1")
        locks.lock_contacts(connection, [contact_id])
        consent.withdraw(connection, shop.key_ring, contact_id, "email", ["offers"], address_id=1, source="link",
                         now=clock.read_now(connection))  # fmt: skip

    for later in ("2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z", ""):
        shop.take_text(f"1,Ann,ann@shop.example,,,subscribed,{later},,\n")
        shop.take_text(f"1b,Ann,ANN@shop.example,,,subscribed,{later},,\n")

        assert (shop.state("1"), shop.state("1", "news")) == ("withdrawn", "granted")


def test_undated_consent_is_recorded_once_with_how_we_know(shop: Shop) -> None:
    for _ in range(2):
        shop.take_text("1,Ann,ann@shop.example,,,subscribed,,,\n")
    shop.take_text("0,Zoe,,,,,,,\n1,Ann,ann@shop.example,,,subscribed,,,\n")  # another file, another line

    assert shop.scalar("SELECT count(*) FROM consent_event") == 2  # one for each topic
    source = str(shop.scalar("SELECT DISTINCT source FROM consent_event"))
    assert re.fullmatch("file:[0-9a-f]{16}:2 [(]no time given[)]", source)


def test_a_topic_column_speaks_for_that_topic_only(shop: Shop) -> None:
    header = "contact_id,email,topic,email_consent\n"

    report = shop.take_text("1,a@shop.example,News,subscribed\n2,b@shop.example,other,subscribed\n", header)

    assert (shop.state("1", "news"), shop.state("1", "offers"), shop.state("2", "news")) == ("granted", None, None)
    assert report.left_out == {"email consent for no topic of the shop": 1}


@pytest.mark.parametrize(
    "header", ["external_id,email\n", "External_ID,email\n", "other,contact_id,external_id,email\n"]
)
def test_an_id_may_go_by_the_name_it_has_in_the_api(shop: Shop, header: str) -> None:
    values = {
        "other": "x",
        "contact_id": "7",
        "external_id": "12" if "contact_id" in header else "7",
        "email": "ann@shop.example",
    }
    line = ",".join(values[column] for column in header.lower().strip().split(","))

    shop.take_text(line + "\n", header)

    with shop.database.connect() as connection:
        assert connection.scalars(text("SELECT external_id FROM contact")).all() == ["7"]


def test_columns_may_have_other_names_and_attributes(shop: Shop) -> None:
    report = shop.take_text(
        "7,Ann,ann@shop.example,gold,pt_br,US-CA,12345,Extra\n",
        "Kunde,Vorname,E-Mail,attr.plan,Locale,subdivision,postal_code,Notes\n",
        mapping={"Kunde": "contact_id", "vorname": "first_name", "E-Mail": "email", "Notes": "attr.note"},
    )

    assert (report.created, report.ignored_columns) == (1, [])
    with shop.database.connect() as connection:
        row = connection.execute(text("SELECT * FROM contact")).one()
        personal = personal_of(connection, shop.key_ring, row.id)
    assert (row.locale, row.subdivision, row.attributes) == ("pt-BR", "CA", {"plan": "gold", "note": "Extra"})
    assert (personal.first_name, personal.postal_code) == ("Ann", "12345")


@pytest.mark.parametrize(
    ("mapping", "answer"),
    [
        ({"Nobody": "email"}, "names the column Nobody, which is not there"),
        ({"email": "e-mail"}, "gives email to e-mail, which is no field"),
        ({"email": "phone", "first_name": "phone"}, "two columns to phone"),
    ],
)
def test_a_wrong_map_is_refused(shop: Shop, mapping: dict[str, str], answer: str) -> None:
    with pytest.raises(Refused, match=answer):
        shop.take_text("1,,,,,,,,\n", mapping=mapping)


def test_a_list_of_addresses_needs_no_ids(shop: Shop) -> None:
    for _ in range(2):
        report = shop.take_text("a@shop.example\nA@SHOP.example\nnothing\n", "email\n")

    assert (report.unchanged, report.rejected) == (2, 1)
    assert shop.scalar("SELECT count(*) FROM contact") == 1
    assert shop.scalar("SELECT external_id ~ '^email-[0-9a-f]{16}$' FROM contact")


def test_a_changed_address_takes_no_consent_along(shop: Shop) -> None:
    shop.take_text("1,Ann,ann@shop.example,,,subscribed,2026-01-01T00:00:00Z,,\n")
    shop.take_text("1,Ann,new@shop.example,,,subscribed,2026-01-01T00:00:00Z,,\n")

    with shop.database.connect() as connection:
        held = consent.state_of(connection, find_contact(connection, shop.key_ring, "new@shop.example"))
    assert [one.for_present_address for one in held] == [False, False]

    shop.take_text("1,Ann,new@shop.example,,,subscribed,2026-02-01T00:00:00Z,,\n")  # asked again, and said yes
    with shop.database.connect() as connection:
        held = consent.state_of(connection, find_contact(connection, shop.key_ring, "1"))
    assert [(one.state, one.for_present_address) for one in held] == [("granted", True)] * 2


def test_two_imports_of_one_file_at_once_make_one_of_everything(shared: Path, shop: Shop, tmp_path: Path) -> None:
    path = shared / "data/complete-journey/contacts.csv"
    with path.open(encoding="utf-8") as file:
        ids = [row["contact_id"] for row in csv.DictReader(file)]

    def take(number: int) -> None:
        import_contacts(shop.database, shop.key_ring, path, topics=TOPICS, rejects=tmp_path / f"{number}.csv")

    def order(_: int) -> None:
        for start in range(0, len(ids), 100):
            with shop.database.begin() as connection:
                ensure_contacts(connection, shop.key_ring, ids[start : start + 100])

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(take, 1), pool.submit(order, 0), pool.submit(take, 2)]:
            future.result()

    assert shop.scalar("SELECT count(*) FROM contact WHERE merged_into IS NULL") == 1_089
    assert shop.scalar("SELECT count(*) FROM contact_alias") == 1_103
    assert shop.scalar(
        "SELECT count(*) = count(DISTINCT (contact_id, channel, topic, action, occurred_at)) FROM consent_event"
    )
    _check_consents(shop, path)


def test_progress_ends_at_the_whole_file(shop: Shop) -> None:
    seen: list[tuple[int, int]] = []

    shop.take_text(
        "".join(f"{n},A,,,,,,,\n" for n in range(1_200)), progress=lambda done, whole: seen.append((done, whole))
    )

    assert seen == sorted(seen)
    assert len(seen) == 3
    assert seen[-1][0] == seen[-1][1] == (shop.folder / "contacts.csv").stat().st_size


@pytest.mark.slow
def test_memory_stays_flat_however_long_the_file(shop: Shop) -> None:
    peaks = []
    for number in (1_000, 4_000):
        rows = "".join(f"{n},A,{n}@shop.example,,,subscribed,,,\n" for n in range(number))
        tracemalloc.start()
        shop.take_text(rows)
        peaks.append(tracemalloc.get_traced_memory()[1] - len(rows))
        tracemalloc.stop()

    assert peaks[1] < peaks[0] * 1.5


BASIS_HEADER = "contact_id,email,email_consent,email_consent_at,email_consent_basis\n"


def test_a_purchase_is_taken_in_where_the_topic_accepts_it(shop: Shop) -> None:
    rows = (
        "1,1@shop.example,subscribed,2026-01-31,implied_purchase\n"
        "2,2@shop.example,subscribed,,implied_purchase\n"  # a purchase without its time has no end
        "3,3@shop.example,subscribed,2026-01-31,legitimate_interest\n"  # never taken for consent
        "4,4@shop.example,subscribed,2026-01-31,implied_inquiry\n"
        "5,5@shop.example,unsubscribed,2026-01-31,implied_purchase\n"
        "6,6@shop.example,subscribed,2026-01-31,\n"
    )
    report = shop.take_text(rows, BASIS_HEADER, bases={"offers": ["implied_purchase"], "news": []})

    assert [shop.state(str(number)) for number in range(1, 7)] == [
        "granted", None, None, None, "withdrawn", "granted",
    ]  # fmt: skip
    assert shop.state("1", "news") is None
    assert shop.scalar("SELECT expires_at::text FROM consent WHERE basis = 'implied_purchase'") == (
        "2028-01-31 00:00:00+00"
    )
    assert report.left_out == {"email implied_inquiry for topics that do not accept it": 1}
    assert [line[1] for line in shop.rejected()] == [
        "implied_purchase needs email_consent_at, the time of the purchase or inquiry; left out",
        "email_consent_basis is none of consent, implied_purchase, implied_inquiry, soft_opt_in; left out",
    ]
    before = shop.everything()
    shop.take_text(rows, BASIS_HEADER, bases={"offers": ["implied_purchase"], "news": []})
    assert shop.everything() == before


def test_a_pending_consent_is_a_request_and_sends_nothing(shop: Shop) -> None:
    shop.take_text("1,1@shop.example,pending,2026-01-31,\n", BASIS_HEADER)

    assert shop.state("1") == "pending"
    assert shop.scalar("SELECT count(*) FROM message") == 0
