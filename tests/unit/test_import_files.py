"""Importing files: every bad thing gets one clear reason, and its neighbours go on."""

from __future__ import annotations

import gzip
import io
import stat
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from crm.domain.errors import BrandNotFound, InvalidMapping, ShardsWarming
from crm.domain.personal import holds_card
from crm.services.imports import Patience
from pipelines.chunks import choose_brand, load_mapping, plan
from pipelines.decompression import UnreadableFile
from pipelines.imports import import_files
from pipelines.rows import MAX_LINE
from tests.support.builders import some_rates
from tests.support.imports import (
    BETS,
    HEADER,
    TRIAL,
    RememberingShards,
    a_file,
    a_mapping,
    import_here,
    in_process,
    stores,
)

ROW = "ana,1.50,NA,2020-05-01\n"
OTHER = "bob,2.00,1.00,2020-05-02\n"


@pytest.fixture
def shards() -> RememberingShards:
    return RememberingShards()


def test_equal_rows_are_two_and_a_second_import_changes_nothing(
    tmp_path: Path, shards: RememberingShards
) -> None:
    file = a_file(tmp_path, "bets.csv", HEADER + ROW + OTHER + ROW)
    first = import_here(tmp_path, shards, a_mapping(), file).as_json()
    assert first == {
        "read": 3, "accepted": 3, "duplicates": 0, "filtered": 0, "rejected": 0,
        "rejected_by_reason": {}, "quarantine": None, "events": 6,
    }  # fmt: skip
    again = import_here(tmp_path, shards, a_mapping(), file).as_json()
    assert (again["accepted"], again["duplicates"], again["events"]) == (0, 3, 0)
    assert not (tmp_path / "quarantine").exists()


def test_each_row_is_converted_from_its_own_currency_with_the_rate_of_its_own_day(
    tmp_path: Path, shards: RememberingShards
) -> None:
    rates = some_rates(
        USD_EUR={"2020-05-01": "0.9", "2020-05-02": "0.8"}, BRL_EUR={"2020-05-02": "0.1675"}
    )
    text = """player,amount,money,at
ana,10.01,USD,2020-05-01
ana,10.01,USD,2020-05-02
bob,0.10,BRL,2020-05-02
bob,7.50,EUR,2020-05-02
eva,1.00,BRL,2020-05-01
"""
    deposit = {"type": {"is": "deposit.completed"}, "amount": "amount"}
    mapping = a_mapping(
        columns={"amount": "decimal", "at": {"type": "time", "zone": "UTC"}},
        currency="money",
        events=[deposit],
    )
    planned = plan([a_file(tmp_path, "deposits.csv", text)], mapping)
    report = import_files(planned, stores(shards, rates=rates), tmp_path, in_process)
    assert report.as_json()["rejected_by_reason"] == {"unknown_currency": 1}
    assert [fault.line for fault in report.tally.faults(0)] == [6]
    stored = [
        (event.amount_minor, event.currency, str(event.original_amount), event.original_currency)
        for event in shards.events.values()
    ]
    assert stored == [
        (901, "EUR", "10.01", "USD"),
        (801, "EUR", "10.01", "USD"),
        (2, "EUR", "0.1", "BRL"),
        (750, "EUR", "None", None),
    ]
    corrected = some_rates(USD_EUR={"2020-05-01": "0.95"}, BRL_EUR={"2020-05-01": "0.17"})
    again = import_files(planned, stores(shards, rates=corrected), tmp_path, in_process).as_json()
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (1, 4, 0)
    assert next(iter(shards.events.values())).amount_minor == 901  # what was taken in stays


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"#NAME?,1,NA,2020-05-01\n", "spreadsheet_error"),
        (b"1-11\xd4\xc2,1,NA,2020-05-01\n", "not_utf8"),
        (b"eve,1,NA\n", "wrong_columns"),
        (b"eve,1,NA,2020-05-01,more\n", "wrong_columns"),
        (b"eve,one,NA,2020-05-01\n", "invalid_number"),
        (b"eve,-1,NA,2020-05-01\n", "invalid_amount"),
        (b"eve,1.005,NA,2020-05-01\n", "invalid_amount"),
        (b"eve,1,NA,yesterday\n", "invalid_time"),
        (b"eve,1,NA,2999-01-01\n", "future_event"),
        (b"eve,1,NA,1980-01-01\n", "before_brand_start"),
        (b",1,NA,2020-05-01\n", "missing_field"),
        (b"eve@example.org,1,NA,2020-05-01\n", "invalid_field"),
        (b'"eve"x,1,NA,2020-05-01\n', "invalid_quotes"),
        (b'"eve,1,NA,2020-05-01\n', "invalid_quotes"),
        (b"e" * (MAX_LINE + 5) + b",1,NA,2020-05-01\n", "line_too_long"),
    ],
)
def test_a_bad_row_is_rejected_by_line_and_its_neighbours_are_kept(
    tmp_path: Path, shards: RememberingShards, line: bytes, code: str
) -> None:
    file = a_file(tmp_path, "b.csv", (HEADER + ROW).encode() + line + OTHER.encode())
    report = import_here(tmp_path, shards, a_mapping(), file)
    assert report.as_json()["accepted"] == 2
    assert report.as_json()["rejected_by_reason"] == {code: 1}
    assert report.tally.first_lines() == {code: [(0, 3)]}
    assert report.quarantine is not None
    assert report.quarantine.read_bytes()[:MAX_LINE] == (HEADER.encode() + line)[:MAX_LINE]


def test_the_quarantine_can_be_mended_and_imported_again(
    tmp_path: Path, shards: RememberingShards
) -> None:
    bad = "eve,one,NA,2020-05-03\n"
    file = a_file(tmp_path, "bets.csv.gz", gzip.compress((HEADER + ROW + bad).encode()))
    quarantine = import_here(tmp_path, shards, a_mapping(), file).quarantine
    assert quarantine is not None
    assert quarantine.name == "bets-20260101T000000.csv"
    reasons = quarantine.with_name(f"{quarantine.name}.reasons.jsonl")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (quarantine, reasons)] == [0o600, 0o600]
    reason = msgspec.json.decode(reasons.read_bytes())
    assert (reason["line"], reason["row"], reason["code"]) == (3, 1, "invalid_number")
    assert "eve" not in reasons.read_text()
    quarantine.write_text(quarantine.read_text().replace("one", "1"))
    mended = import_here(tmp_path, shards, a_mapping(), quarantine).as_json()
    assert (mended["read"], mended["accepted"]) == (1, 1)


def test_a_conflict_is_rejected_and_changes_nothing(
    tmp_path: Path, shards: RememberingShards
) -> None:
    rule = [{"type": {"is": "bet.placed"}, "event_id": "player", "amount": "stake"}]
    mapping = a_mapping(events=rule)
    import_here(tmp_path, shards, mapping, a_file(tmp_path, "a.csv", HEADER + ROW))
    before = dict(shards.events)
    changed = a_file(tmp_path, "b.csv", HEADER + ROW.replace("1.50", "9.00"))
    report = import_here(tmp_path, shards, mapping, changed).as_json()
    assert report["rejected_by_reason"] == {"conflict": 1}
    assert shards.events == before


def test_a_row_is_stored_whole_or_not_at_all(tmp_path: Path, shards: RememberingShards) -> None:
    file = a_file(tmp_path, "a.csv", HEADER + "ana,1.00,0.001,2020-05-01\n")
    report = import_here(tmp_path, shards, a_mapping(), file)  # the payout has three decimals
    assert report.as_json()["rejected_by_reason"] == {"invalid_amount": 1}
    assert not shards.events


def test_filtered_rows_are_counted(tmp_path: Path, shards: RememberingShards) -> None:
    file = a_file(tmp_path, "a.csv", HEADER + ROW + OTHER)
    report = import_here(tmp_path, shards, a_mapping(filter="player == 'bob'"), file).as_json()
    assert (report["read"], report["accepted"], report["filtered"]) == (2, 1, 1)


def test_doubtful_ids_are_kept_and_told(tmp_path: Path, shards: RememberingShards) -> None:
    file = a_file(tmp_path, "a.csv", HEADER + ROW.replace("ana", "1.21314E+15"))
    report = import_here(tmp_path, shards, a_mapping(), file)
    assert report.as_json()["accepted"] == 1
    assert "looks like a number from a spreadsheet (line 2)" in report.as_text()


def test_quoted_fields_may_span_lines_and_lines_are_counted_on(
    tmp_path: Path, shards: RememberingShards
) -> None:
    content = HEADER + '"a, ""b""","1",NA,2020-05-01\r\n"two' + 'lines",one,NA,x\nbad\n'
    spanning = content.replace("twolines", "two\nlines")
    report = import_here(tmp_path, shards, a_mapping(), a_file(tmp_path, "a.csv", spanning))
    assert {e.player_id for e in shards.events.values()} == {'a, "b"'}
    assert [fault.line for fault in report.tally.faults(0)] == [3, 5]
    assert report.quarantine is not None
    assert report.quarantine.read_text() == HEADER + '"two\nlines",one,NA,x\nbad\n'


def _zip(*contents: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.csv", content)
    return out.getvalue()


PLAIN = (HEADER + ROW + OTHER).encode()


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAIN.rstrip(b"\n"),
        PLAIN.replace(b"\n", b"\n\n"),
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:30]) + gzip.compress(PLAIN[30:]),
        zstandard.compress(PLAIN),
        zstandard.compress(PLAIN[:30]) + zstandard.compress(PLAIN[30:]),
        _zip(PLAIN),
    ],
)
def test_the_same_rows_however_they_are_packed(
    tmp_path: Path, shards: RememberingShards, content: bytes
) -> None:
    import_here(tmp_path, shards, a_mapping(), a_file(tmp_path, "a.csv", PLAIN))
    report = import_here(tmp_path, shards, a_mapping(), a_file(tmp_path, "b.dat", content))
    assert (report.tally.duplicates, report.tally.read) == (2, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (gzip.compress(b""), "the file is empty"),
        (gzip.compress(PLAIN * 100)[:-20], "damaged or cut short"),
        (zstandard.compress(PLAIN * 100)[:-20], "damaged or cut short"),
        (_zip(PLAIN)[:-30], "damaged or cut short"),
        (_zip(PLAIN, PLAIN), "a zip must hold one file, this one holds 2"),
        (b"\xff\xfe\x00\x01\n", "line 1 is no header in utf-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_before_anything_is_sent(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = a_file(tmp_path, "a.csv", content)
    with pytest.raises(UnreadableFile, match=message) as told:
        plan([file], a_mapping())
    assert str(file) in told.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="there is no such file"):
        plan([tmp_path / "none.csv"], a_mapping())


def test_a_header_without_rows_imports_nothing(tmp_path: Path, shards: RememberingShards) -> None:
    assert import_here(tmp_path, shards, a_mapping(), a_file(tmp_path, "a", HEADER)).tally.read == 0


def test_files_with_other_columns_are_told(tmp_path: Path) -> None:
    one = a_file(tmp_path, "a.csv", PLAIN)
    other = a_file(tmp_path, "b.csv", b"x" + PLAIN)
    with pytest.raises(UnreadableFile, match="its columns differ"):
        plan([one, other], a_mapping())


def test_a_mapping_that_names_a_column_which_is_not_there_sends_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidMapping, match="no such column; it has player, stake, won, at"):
        plan([a_file(tmp_path, "a.csv", PLAIN)], a_mapping(columns={"gone": "text"}))


def test_the_brand_asked_for_goes_over_the_mappings_own() -> None:
    brands = {"trial": TRIAL}
    assert choose_brand(a_mapping(), brands, None).constant_brand == "trial"
    assert choose_brand(a_mapping(brand=None), brands, None).constant_brand == "trial"
    assert choose_brand(a_mapping(brand="player"), brands, "trial").constant_brand == "trial"
    with pytest.raises(BrandNotFound, match="no such brand; there are trial"):
        choose_brand(a_mapping(), brands, "nowhere")


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "\0", "source: X"])
def test_a_mapping_file_that_is_none_is_told_by_name(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidMapping, match=r"bad\.yaml"):
        load_mapping(a_file(tmp_path, "bad.yaml", content))


def test_whitespace_files_have_a_header_or_names(tmp_path: Path, shards: RememberingShards) -> None:
    text = "  player stake  won at\r\n  007   1.50  NA 2020-05-01\r\n"
    import_here(tmp_path, shards, a_mapping(format="whitespace"), a_file(tmp_path, "a.txt", text))
    named = {"kind": "whitespace", "columns": ["player", "stake", "won", "at"]}
    body = a_file(tmp_path, "b.txt", text.partition("\n")[2])
    report = import_here(tmp_path, shards, a_mapping(format=named), body)
    assert report.tally.duplicates == 1


def test_json_lines_keep_numbers_as_written(tmp_path: Path, shards: RememberingShards) -> None:
    lines = (
        '{"player": "ana", "stake": 1000000000000.10, "at": "2020-05-01", "p": {"x": "y"}}\n'
        '{"player": "bob", "stake": "2", "at": "2020-05-01", "p": null}\n'
        '{"player": "eve", "stake": tru\n[1]\n'
    )
    rule = {"type": {"is": "bet.placed"}, "amount": "stake", "properties": "json(p)"}
    columns: dict[str, Any] = {k: v for k, v in BETS["columns"].items() if k != "won"}
    mapping = a_mapping(format="jsonl", columns=columns, events=[rule])
    report = import_here(tmp_path, shards, mapping, a_file(tmp_path, "a.jsonl", lines))
    stored = sorted(shards.events.values(), key=lambda event: event.player_id)
    assert [event.amount_minor for event in stored] == [100_000_000_000_010, 200]
    assert [event.properties for event in stored] == ['{"x":"y"}', "{}"]
    assert [fault.line for fault in report.tally.faults(0)] == [3, 4]


def test_json_lines_may_name_their_keys_in_any_order_in_any_file_and_late(
    tmp_path: Path, shards: RememberingShards
) -> None:
    first = '{"player": "ana", "stake": 1, "at": "2020-05-01"}\n' * 1_200
    late = '{"stake": 2, "at": "2020-05-01", "player": "bob", "won": 3}\n'
    other = '{"at": "2020-05-02", "won": 4, "stake": 1, "player": "eve", "shop": "x"}\n'
    files = [a_file(tmp_path, "a.jsonl", first + late), a_file(tmp_path, "b.jsonl", other)]
    mapping = a_mapping(format="jsonl")
    report = import_here(tmp_path, shards, mapping, *files)
    assert (report.tally.accepted, report.tally.rejected) == (1_202, 0)
    assert shards.total("bet.settled") == (2 + 3 + 1 + 4) * 100
    by_player = {event.player_id: event.amount_minor for event in shards.events.values()
                 if event.type == "bet.placed"}  # fmt: skip
    assert by_player == {"ana": 100, "bob": 200, "eve": 100}
    # other files beside it have other keys: the rows stay the same rows
    again = import_here(tmp_path, shards, mapping, files[0])
    assert again.tally.duplicates == 1_201


def test_a_file_that_is_no_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="holds no JSON objects"):
        plan([a_file(tmp_path, "a.jsonl", PLAIN)], a_mapping(format="jsonl"))


def _parquet(path: Path, stakes: list[str]) -> Path:
    count = len(stakes)
    at = [datetime(2020, 5, day + 1, tzinfo=UTC) for day in range(count)]
    table = pa.table(
        {
            "event_id": [f"e{i}" for i in range(count)],
            "type": ["bet.placed"] * count,
            "player_id": ["007"] * count,
            "brand": ["trial"] * count,
            "occurred_at": pa.array(at, pa.timestamp("us", "UTC")),
            "amount": stakes,
            "currency": ["EUR"] * count,
            "properties": ['{"product":"crash"}', None, None][:count],
        }
    )
    pq.write_table(table, path)
    return path


def test_parquet_of_event_fields_comes_in_and_its_rejected_rows_come_out(
    tmp_path: Path, shards: RememberingShards
) -> None:
    simulated = Path(__file__).parents[2] / "configs" / "mappings" / "simulated.yaml"
    mapping = load_mapping(simulated)
    file = _parquet(tmp_path / "s.parquet", ["1.50", "-1", "2.25"])
    report = import_here(tmp_path, shards, mapping, file)
    assert shards.total("bet.placed") == 375
    assert shards.events["trial", "e0"].properties == '{"product":"crash"}'
    assert [fault.line for fault in report.tally.faults(0)] == [2]
    assert report.quarantine is not None
    assert pq.read_table(report.quarantine).equals(pq.read_table(file).slice(1, 1))


@pytest.mark.parametrize("cut", [10, 400])
def test_a_damaged_parquet_file_is_told(tmp_path: Path, cut: int) -> None:
    file = _parquet(tmp_path / "s.parquet", ["1"])
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UnreadableFile, match="not a Parquet file, or damaged"):
        plan([file], a_mapping(format="parquet"))


def test_warming_shards_are_waited_for(tmp_path: Path) -> None:
    shards = RememberingShards(warming=3)
    report = import_here(tmp_path, shards, a_mapping(), a_file(tmp_path, "a.csv", PLAIN))
    assert report.tally.accepted == 2
    assert shards.calls == 4


def test_patience_ends(tmp_path: Path) -> None:
    planned = plan([a_file(tmp_path, "a.csv", PLAIN)], a_mapping())
    from dataclasses import replace

    hasty = replace(stores(RememberingShards(warming=10**9)), patience=Patience(0.05, 0.01, 0.02))
    with pytest.raises(ShardsWarming):
        import_files(planned, hasty, tmp_path / "quarantine", in_process)


def test_a_card_number_does_not_come_into_the_quarantine_file(
    tmp_path: Path, shards: RememberingShards
) -> None:
    card = "4111 1111 1111 1111"
    text = HEADER + f"{card},1,NA,2020-05-01\nana,x,NA,2020-05-01\n"
    report = import_here(tmp_path, shards, a_mapping(), a_file(tmp_path, "a.csv", text))
    assert report.tally.rejected == 2
    assert report.quarantine is not None
    kept = report.quarantine.read_text()
    assert card not in kept
    assert kept.splitlines() == [HEADER.strip(), "", "ana,x,NA,2020-05-01"]


def test_ids_that_stand_side_by_side_are_no_card(tmp_path: Path, shards: RememberingShards) -> None:
    assert holds_card("569079,3297741"), "else this row shows nothing"
    row = "569079,3297741,NA,2020-05-01x"
    report = import_here(
        tmp_path, shards, a_mapping(), a_file(tmp_path, "a.csv", f"{HEADER}{row}\n")
    )
    assert report.quarantine is not None
    assert report.quarantine.read_text().splitlines() == [HEADER.strip(), row]


def test_json_nested_too_deep_is_one_rejected_row(
    tmp_path: Path, shards: RememberingShards
) -> None:
    good = '{"player": "ana", "stake": 1, "won": null, "at": "2020-05-01"}\n'
    file = a_file(tmp_path, "a.jsonl", good + "[" * 5_000 + "\n")
    report = import_here(tmp_path, shards, a_mapping(format="jsonl"), file)
    assert (report.tally.accepted, report.tally.rejected) == (1, 1)
    deep = a_file(tmp_path, "deep.yaml", "a: " + "[" * 20_000)
    with pytest.raises(InvalidMapping, match="nested too deep"):
        load_mapping(deep)


def test_a_first_line_that_is_no_header_is_not_repeated_where_it_is_personal(
    tmp_path: Path,
) -> None:
    file = a_file(tmp_path, "a.csv", "ana@example.com,12,NA,2020-05-01\n" * 2)
    with pytest.raises(InvalidMapping) as told:
        plan([file], a_mapping())
    assert "ana@" not in told.value.message
