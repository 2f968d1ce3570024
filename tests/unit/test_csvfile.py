"""Reading hostile CSV files: every good row comes out, every bad one is named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import DispatcherError, NotFound, Refused
from dispatcher.imports.csvfile import LONGEST_LINE, BadRow, CsvFile, Row

TORTURE = "data/csv-torture"
#: What each file of the collection holds: good rows, lines of bad ones.
TORTURED: dict[str, tuple[int, list[int]]] = {
    "contacts/cp1252_semicolon_crlf.csv": (60, []),
    "contacts/header_only.csv": (0, []),
    "contacts/mac_cr_only.csv": (60, []),
    "contacts/mixed_encoding_rows.csv": (20, []),
    "contacts/nul_bytes.csv": (5, []),
    "contacts/ragged_and_unterminated.csv": (15, [4, 6, 9, 13]),
    "contacts/shopify_customer_export_messy.csv": (36, []),
    "contacts/utf16le_bom_tab_crlf.csv": (60, []),
    "contacts/utf8_all_quoted_lf.csv": (60, []),
    "contacts/utf8_bom_semicolon_crlf.csv": (60, []),
    "csvkit/bad.csv": (1, [2, 3]),
    "csvkit/mac_newlines.csv": (2, []),
    "csvkit/null_byte.csv": (1, []),
    "csvkit/test_header_newline.csv": (1, []),
    "csvkit/test_latin1.csv": (2, []),
    "csvkit/test_utf16_big.csv": (2, []),
    "csvkit/test_utf16_little.csv": (2, []),
    "csvkit/test_utf8_bom.csv": (2, []),
    "messytables/complex.csv": (3, []),
    "messytables/spanish_chars.csv": (115, []),
    "messytables/utf-16le_encoded.csv": (327, []),
}


def read(path: Path) -> tuple[list[Row], list[BadRow]]:
    bad: list[BadRow] = []
    with CsvFile(path) as file:
        return list(file.rows(bad=bad.append)), bad


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


@pytest.mark.parametrize("name", TORTURED)
def test_no_good_row_is_lost(shared: Path, name: str) -> None:
    rows, bad = read(shared / TORTURE / name)

    assert (len(rows), [row.line for row in bad]) == TORTURED[name]


def test_every_file_gives_rows_or_one_clear_line(shared: Path) -> None:
    for path in sorted((shared / TORTURE).rglob("*.csv")):
        answer, rows, bad = None, [], []
        try:
            rows, bad = read(path)
        except DispatcherError as error:
            answer = str(error)

        assert answer is None or (path.name in answer and "\n" not in answer)
        assert all(row.values for row in rows)
        assert all(row.reason and row.line > 1 for row in bad)


def test_the_spectrum_is_read_as_it_is_written(shared: Path) -> None:
    folder = shared / TORTURE / "csv-spectrum"
    for path in sorted((folder / "csvs").glob("*.csv")):
        rows, bad = read(path)

        assert [row.values for row in rows] == json.loads((folder / "json" / f"{path.stem}.json").read_bytes()), (
            path.name
        )
        assert bad == []


def test_letters_survive_every_encoding(shared: Path) -> None:
    names = []
    for name in ("cp1252_semicolon_crlf", "utf8_bom_semicolon_crlf", "utf16le_bom_tab_crlf", "mac_cr_only"):
        rows, _ = read(shared / TORTURE / f"contacts/{name}.csv")
        names.append({row.values["contact_id"]: row.values["last_name"] for row in rows})

    assert {each["12348"] for each in names} == {"Mäkinen"}
    mixed, _ = read(shared / TORTURE / "contacts/mixed_encoding_rows.csv")
    assert {row.values["contact_id"]: row.values["first_name"] for row in mixed}["12377"] == "Inès"  # UTF-8
    assert {row.values["contact_id"]: row.values["last_name"] for row in mixed}["12405"] == "Häkkinen"  # not


def test_an_open_quote_costs_its_own_line_only(file: Path) -> None:
    file.write_text('a,b\n1,2\n"open,3\n4,5\n6,"x ""y"" z"\n7,"two\nlines"\n8,9\n')

    rows, bad = read(file)

    assert [(row.line, row.values["a"]) for row in rows] == [(2, "1"), (4, "4"), (5, "6"), (6, "7"), (8, "8")]
    assert [(row.line, row.reason) for row in bad] == [(3, "a quote is opened and never closed")]
    assert rows[3].values["b"] == "two\nlines"


def test_text_after_a_closing_quote_does_not_cost_the_row(file: Path) -> None:
    file.write_text('a,b\n"VIP" gold,2\n5" disk,3\n')

    assert [row.values for row in read(file)[0]] == [{"a": "VIP gold", "b": "2"}, {"a": '5" disk', "b": "3"}]


def test_ragged_rows_are_set_aside_and_empty_ends_are_not_ragged(file: Path) -> None:
    file.write_text("a,b\n1,2,\n1,2,3\n1\n\n,\n3,4\na,b\n")

    rows, bad = read(file)

    assert [row.line for row in rows] == [2, 7]
    assert [(row.line, row.reason) for row in bad] == [
        (3, "the row has 3 cells, the header has 2"),
        (4, "the row has 1 cells, the header has 2"),
        (8, "the header line again"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_every_mix_of_encoding_line_end_and_delimiter_is_told(
    file: Path, encoding: str, end: str, delimiter: str
) -> None:
    lines = ["id", "name"], ["1", "Søren"], ["2", "Zoë"]
    file.write_bytes("".join(delimiter.join(cells) + end for cells in lines).encode(encoding))

    rows, bad = read(file)

    assert [(row.line, row.values) for row in rows] == [
        (2, {"id": "1", "name": "Søren"}),
        (3, {"id": "2", "name": "Zoë"}),
    ]
    assert bad == []


def test_a_line_without_end_is_set_aside_and_the_rest_is_read(file: Path) -> None:
    file.write_text(f"a,b\n1,2\n{'x' * (LONGEST_LINE + 5)},3\n4,5\n")

    rows, bad = read(file)

    assert [row.line for row in rows] == [2, 4]
    assert [row.line for row in bad] == [3]


def test_excel_may_say_its_delimiter(file: Path) -> None:
    file.write_text("sep=;\na;b,c\n1;2\n")

    assert read(file)[0] == [Row(3, {"a": "1", "b,c": "2"})]


def test_gzip_is_unpacked_on_the_way(file: Path) -> None:
    file.write_bytes(gzip.compress(b"a,b\n1,2\n"))

    assert [row.values for row in read(file)[0]] == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"", "is empty"),
        (b"\n\r\n \n", "is empty"),
        (b"id,email,email\n1,a,b\n", "line 1: more than one column is called email"),
        (b"PK\x03\x04 a spreadsheet", "spreadsheet"),
        (b'"never closed\n1,2\n', "never closed"),
        (b"x" * (LONGEST_LINE + 1), "not a CSV file"),
        (gzip.compress(b"a,b\n1,2\n" * 10_000, mtime=0)[:60], "does not unpack"),
        (b"\x1f\x8b\x08 not really gzip", "does not unpack"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_clear_line(file: Path, content: bytes, answer: str) -> None:
    file.write_bytes(content)

    with pytest.raises(Refused, match=answer) as refused:
        read(file)

    assert "\n" not in str(refused.value)
    assert file.name in str(refused.value)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read(tmp_path / "nothing.csv")
    with pytest.raises(Refused, match="cannot be read"):
        read(tmp_path)


def test_the_position_reaches_the_size(file: Path) -> None:
    file.write_text("a,b\n" + "1,2\n" * 50_000)

    with CsvFile(file) as opened:
        seen = [opened.position for _ in opened.rows(bad=lambda _: None)]

    assert seen == sorted(seen)
    assert seen[-1] == opened.size


@given(st.binary(max_size=300), st.sampled_from([b"", b"a,b\n", b"a;b\r\n", b'"a","b"\n']))
def test_no_bytes_whatever_end_in_a_traceback(folder: Path, noise: bytes, header: bytes) -> None:
    path = folder / "noise.csv"
    path.write_bytes(header + noise)

    try:
        rows, bad = read(path)
    except DispatcherError:
        return

    lines = [row.line for row in rows] + [row.line for row in bad]
    assert len(lines) == len(set(lines))


@given(st.lists(st.tuples(st.text('ab",;\n\r é'), st.text('xy"\t|\n ', min_size=1)), max_size=20))
def test_what_the_csv_module_writes_comes_back(folder: Path, cells: list[tuple[str, str]]) -> None:
    path = folder / "round.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(("first", "second"))
        writer.writerows(cells)

    rows, bad = read(path)

    assert [tuple(row.values.values()) for row in rows] == cells
    assert bad == []
