"""A mailbox of bounces on a real IMAP server: read once, marked once it is committed, and never held up by one mail."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest
from feedback_rows import add_left, state_of, suppressions
from imap_server import PASSWORD, USER, Running, imap_server
from sqlalchemy import Engine, text
from test_bounce_import import bounce

from dispatcher import cli, mailboxes
from dispatcher.imports import bounces
from dispatcher.keys import KeyRing
from dispatcher.mailboxes import MailboxAway, read_mailbox
from dispatcher.mailboxes import imap as imap_client
from dispatcher.mailboxes.imap import mailbox_at

LETTER = "From: jane@people.example\nTo: bounces@shop.example\nSubject: where is my parcel?\n\nHello?\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with imap_server(tmp_path_factory.mktemp("imap")) as running:
        yield running


@pytest.fixture
def box(server: Running) -> Running:
    """The mailbox, emptied."""
    with server.opened() as client:
        client.uid("STORE", "1:*", "+FLAGS.SILENT", "(\\Deleted)")
        client.expunge()
    return server


@pytest.fixture(autouse=True)
def _trusted(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", server.certificate)


@pytest.fixture
def message_id(database: Engine, key_ring: KeyRing) -> UUID:
    with database.begin() as connection:
        return add_left(connection, key_ring, status="sent")


def url_of(box: Running, scheme: str = "imaps", password: str = PASSWORD) -> str:
    port = box.tls_port if scheme == "imaps" else box.port
    return f"{scheme}://{quote(USER, safe='')}:{quote(password, safe='')}@localhost:{port}/INBOX"


@pytest.mark.parametrize("scheme", ["imaps", "imap+starttls"])
def test_a_bounce_is_taken_in_and_marked_as_seen_and_a_letter_is_left_alone(
    database: Engine, key_ring: KeyRing, box: Running, message_id: UUID, scheme: str
) -> None:
    box.put(LETTER, bounce(message_id))

    report = read_mailbox(database, key_ring, mailbox_at(url_of(box, scheme)))

    assert (report.read, report.recorded, report.suppressed, report.set_aside) == (2, 1, 1, 0)
    assert report.ignored == {"not a bounce": 1}
    assert state_of(database, message_id) == ("bounced", None)
    assert suppressions(database) == [("hard_bounce", "all")]
    assert box.flags() == [set(), {"\\Seen"}]


def test_what_was_read_is_not_fetched_again_and_what_came_since_is(
    database: Engine, key_ring: KeyRing, box: Running, message_id: UUID
) -> None:
    mailbox = mailbox_at(url_of(box))
    box.put(*[LETTER] * 60)
    assert read_mailbox(database, key_ring, mailbox).read == 60
    assert read_mailbox(database, key_ring, mailbox).read == 0

    box.put(bounce(message_id))
    assert read_mailbox(database, key_ring, mailbox).recorded == 1


def test_a_mailbox_made_anew_is_read_whole_again_which_changes_nothing(
    database: Engine, key_ring: KeyRing, box: Running, message_id: UUID
) -> None:
    mailbox = mailbox_at(url_of(box))
    box.put(bounce(message_id))
    read_mailbox(database, key_ring, mailbox)
    with database.begin() as connection:
        connection.execute(text("UPDATE mailbox SET uid_validity = 1, last_uid = 4000000"))

    report = read_mailbox(database, key_ring, mailbox)

    assert (report.read, report.recorded, report.known) == (1, 0, 1)


def test_a_mail_that_cannot_be_read_is_flagged_and_counted_and_the_next_is_read(
    database: Engine, key_ring: KeyRing, box: Running, message_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = bounces.read_mail

    def stumbles(raw: bytes) -> object:
        if b"poison" in raw:
            raise RecursionError
        return truly(raw)

    monkeypatch.setattr(bounces, "read_mail", stumbles)
    monkeypatch.setattr(mailboxes, "LARGEST_MAIL", 2_000)
    box.put(LETTER + "poison\n", LETTER + "x\n" * 2_000, bounce(message_id))

    report = read_mailbox(database, key_ring, mailbox_at(url_of(box)))

    assert (report.read, report.set_aside, report.recorded) == (3, 2, 1)
    assert box.flags() == [{"\\Flagged"}, {"\\Flagged"}, {"\\Seen"}]
    with database.connect() as connection:
        assert connection.scalar(text("SELECT set_aside FROM mailbox")) == 2


def test_a_bounce_that_anybody_could_have_written_changes_nothing_and_is_left(
    database: Engine, key_ring: KeyRing, box: Running
) -> None:
    box.put(bounce("no-id-of-ours"))

    report = read_mailbox(database, key_ring, mailbox_at(url_of(box)))

    assert (report.rejected, report.recorded) == (1, 0)
    assert box.flags() == [set()]


def test_a_reader_that_dies_before_the_commit_has_marked_nothing_and_the_next_takes_it_in(
    database: Engine, key_ring: KeyRing, box: Running, message_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.put(bounce(message_id))

    class DeathError(BaseException):
        """Not to be caught by anybody."""

    def die(*_: object) -> None:
        raise DeathError

    with monkeypatch.context() as dying:
        dying.setattr(mailboxes, "record_reports", die)
        with pytest.raises(DeathError):
            read_mailbox(database, key_ring, mailbox_at(url_of(box)))
    assert box.flags() == [set()]

    with monkeypatch.context() as dying:
        dying.setattr(imap_client.Imap, "mark", die)  # it was committed, and not marked
        with pytest.raises(DeathError):
            read_mailbox(database, key_ring, mailbox_at(url_of(box)))
    assert state_of(database, message_id) == ("bounced", None)

    assert read_mailbox(database, key_ring, mailbox_at(url_of(box))).known == 1
    assert box.flags() == [{"\\Seen"}]


def test_two_readers_at_once_take_in_each_mail_once(database: Engine, key_ring: KeyRing, box: Running) -> None:
    with database.begin() as connection:
        ids = [
            add_left(connection, key_ring, email=f"p{n}@people.example", external_id=f"p{n}", status="sent")
            for n in range(60)
        ]
    box.put(*(bounce(one, number=n) for n, one in enumerate(ids)))
    recorded: list[int] = []

    def read() -> None:
        recorded.append(read_mailbox(database, key_ring, mailbox_at(url_of(box))).recorded)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert sum(recorded) == 60
    assert box.flags() == [{"\\Seen"}] * 60


def test_a_certificate_that_nobody_vouches_for_gets_no_password(
    database: Engine, key_ring: KeyRing, box: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    for scheme in ("imaps", "imap+starttls"):
        with pytest.raises(MailboxAway, match="TLS failed"):
            read_mailbox(database, key_ring, mailbox_at(url_of(box, scheme)))


def test_what_goes_wrong_is_one_line_without_the_password(database: Engine, key_ring: KeyRing, box: Running) -> None:
    wrong = mailbox_at(url_of(box, password="another-secret"))
    with pytest.raises(MailboxAway, match="refuses to login") as refused:
        read_mailbox(database, key_ring, wrong)
    assert "another-secret" not in f"{refused.value} {wrong!r}"

    with pytest.raises(MailboxAway, match="refuses to open the folder"):
        read_mailbox(database, key_ring, mailbox_at(url_of(box).replace("/INBOX", "/Nowhere")))
    with pytest.raises(MailboxAway, match="cannot be reached"):
        read_mailbox(database, key_ring, mailbox_at("imap://u:p@127.0.0.1:1/INBOX"))


@pytest.fixture
def run(key_ring: KeyRing, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:  # fmt: skip
    """Run a command of this test's installation."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    settings = {"DATABASE_URL": database_url, "BROKER_URL": "redis://127.0.0.1:1", "HOME": str(tmp_path / "home")}
    for name, value in settings.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (cli.run(list(arguments)), *capsys.readouterr())

    return run


def test_the_command_reads_the_configured_mailbox_or_one_that_is_named(
    run: Callable[..., tuple[int, str, str]], box: Running, message_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("import", "bounces") == (
        1, "", "say where the mails are, or set DISPATCHER_BOUNCE_MAILBOX_URL\n"
    )  # fmt: skip
    box.put(bounce(message_id))

    code, out, _ = run("import", "bounces", url_of(box), "--json")
    assert (code, json.loads(out)["recorded"]) == (0, 1)

    monkeypatch.setenv("DISPATCHER_BOUNCE_MAILBOX_URL", url_of(box))
    code, out, _ = run("import", "bounces", "--json")
    assert (code, json.loads(out)["read"]) == (0, 0)
    code, _, err = run("import", "bounces", "imap://u:p@mail.example/INBOX")
    assert code == 1
    assert "password in clear" in err
