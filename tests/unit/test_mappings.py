"""Mappings are read strictly, and turn rows into events exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from crm.domain.bound_mappings import BoundMapping, looks_damaged
from crm.domain.columns import parse_column
from crm.domain.errors import EventRefused, InvalidMapping
from crm.domain.expressions import exact_arithmetic
from tests.support.imports import a_mapping

FILE = ["player", "stake", "won", "at"]
AT = datetime(2020, 5, 1, 12, tzinfo=UTC)


def read(options: object, cell: object) -> Any:
    with exact_arithmetic():
        return parse_column("c", options).reader()(cell)


def events(*cells: str, **changes: Any) -> list[Any]:
    with exact_arithmetic():
        return list(BoundMapping(a_mapping(**changes), FILE).events(cells, "hash"))


def test_one_row_becomes_two_events_of_one_player() -> None:
    placed, settled = events("007", "1.50", "0.25", "2020-05-01T12:00:00Z")
    assert (placed.type, placed.amount, placed.event_id) == (
        "bet.placed",
        Decimal("1.50"),
        "hash:placed",
    )
    assert (settled.type, settled.amount) == ("bet.settled", Decimal("1.75"))
    assert settled.properties == {"result": "won"}
    assert {placed.player_id, settled.player_id} == {"007"}
    assert placed.occurred_at == placed.known_at == AT
    assert placed.backfill


def test_a_missing_spelling_is_no_value() -> None:
    _, settled = events("-abc", "1.50", "NA", "2020-05-01T12:00:00Z")
    assert (settled.amount, settled.properties) == (Decimal(0), {"result": "lost"})
    assert settled.player_id == "-abc"


def test_a_filtered_row_gives_nothing_even_where_other_columns_are_broken() -> None:
    assert events("x", "broken", "NA", "never", filter="player != 'x'") == []


def test_an_event_can_depend_on_the_row() -> None:
    rule = {"type": {"is": "bet.placed"}, "when": "stake > 1", "amount": "stake"}
    assert len(events("x", "2", "NA", "2020-05-01", events=[rule])) == 1
    assert events("x", "1", "NA", "2020-05-01", events=[rule]) == []


@pytest.mark.parametrize(
    ("cells", "code", "field"),
    [
        (("", "1", "1", "2020-05-01"), "missing_field", "player_id"),
        (("#NAME?", "1", "1", "2020-05-01"), "spreadsheet_error", "player_id"),
        (("#REF!", "1", "1", "2020-05-01"), "spreadsheet_error", "player_id"),
        (("#DIV/0!", "1", "1", "2020-05-01"), "spreadsheet_error", "player_id"),
        (("x", "1,5", "1", "2020-05-01"), "invalid_number", "stake"),
        (("x", "1", "1", "01.05.2020"), "invalid_time", "at"),
        (("x", "1", "1", ""), "missing_field", "occurred_at"),
        (("x", "", "1", "2020-05-01"), "missing_field", "amount"),
    ],
)
def test_a_bad_cell_refuses_the_row(cells: tuple[str, ...], code: str, field: str) -> None:
    with pytest.raises(EventRefused) as refused:
        events(*cells)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert not any(cell in refused.value.message for cell in cells if len(cell) > 1)


@pytest.mark.parametrize("player", ["007", "-abc", "#1", "=1+1", "1E5x", " padded "])
def test_ids_stay_text(player: str) -> None:
    placed, _ = events(player, "1", "NA", "2020-05-01")
    assert placed.player_id == player


@pytest.mark.parametrize(("player", "doubtful"), [
    ("1.21314E+15", True), ("1e5", True), ("1,2E+3", True), ("007", False), ("e5", False),
])  # fmt: skip
def test_an_id_in_scientific_notation_is_doubtful(player: str, doubtful: bool) -> None:
    assert looks_damaged(player) is doubtful


@pytest.mark.parametrize(
    ("options", "cell", "value"),
    [
        ("decimal", " 2.00E+03 ", Decimal(2000)),
        ({"type": "decimal", "scale": 0.01}, "1999", Decimal("19.99")),
        ({"type": "decimal", "decimal_mark": ",", "thousands_mark": "."}, "1.234,5",
         Decimal("1234.5")),
        ("decimal", 3, Decimal(3)),
        ("decimal", Decimal("1.10"), Decimal("1.10")),
        ({"type": "time", "format": "%d/%m/%Y %H:%M", "zone": "America/Sao_Paulo"},
         "01/05/2020 09:00", AT),
        ({"type": "time", "format": "unix"}, "1588334400", AT),
        ({"type": "time", "format": "unix_ms"}, "1588334400000", AT),
        ("time", "2020-05-01T14:00:00+02:00", AT),
        ("time", AT, AT),
        ("boolean", "Yes", True),
        ("text", 7, "7"),
        ({"type": "text", "missing": ["-"]}, "-", None),
    ],
)  # fmt: skip
def test_a_cell_is_read_as_its_column_says(options: object, cell: object, value: object) -> None:
    assert read(options, cell) == value


@pytest.mark.parametrize(
    ("options", "cell", "code"),
    [
        ("time", "2020-05-01T12:00:00", "invalid_time"),  # no zone anywhere
        (
            {"type": "time", "zone": "Europe/Lisbon"},
            "2020-03-29T01:30:00",
            "invalid_time",
        ),  # skipped
        ({"type": "time", "format": "unix"}, "9" * 30, "invalid_time"),
        ({"type": "decimal", "decimal_mark": ","}, "1.234", "invalid_number"),
        ("decimal", float("nan"), "invalid_number"),
        ("decimal", True, "invalid_number"),
        ("text", 1.5, "invalid_field"),
        ("boolean", "maybe", "invalid_field"),
    ],
)
def test_a_cell_that_cannot_be_read_is_refused(options: object, cell: object, code: str) -> None:
    with pytest.raises(EventRefused) as refused:
        read(options, cell)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evnts": []}, "unknown key 'evnts'"),
        ({"source": None}, "source is missing"),
        ({"player_id": None}, "player_id is missing"),
        ({"format": "xlsx"}, "format.kind: one of csv"),
        ({"format": {"kind": "csv", "delimiter": "::"}}, "format.delimiter: one character"),
        ({"format": {"kind": "csv", "encoding": "utf-16"}}, "format.encoding: one of"),
        ({"columns": {"stake": "number"}}, "columns.stake.type: one of text"),
        (
            {"columns": {"stake": {"type": "decimal", "null": []}}},
            "columns.stake: unknown key 'null'",
        ),
        (
            {"columns": {"at": {"type": "time", "zone": "Mars"}}},
            "columns.at.zone: no such time zone",
        ),
        ({"events": []}, "events: a list"),
        ({"events": [{"amount": "stake"}]}, r"events\[0\].type is missing"),
        ({"events": [{"type": "t", "amout": "stake"}]}, r"events\[0\]: unknown key 'amout'"),
    ],
)
def test_a_wrong_mapping_names_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidMapping, match=message):
        a_mapping(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"columns": {"Stake": "decimal"}},
            "columns.Stake: the file has no such column; it has player",
        ),
        ({"player_id": "Player"}, "player_id: there is no column 'Player'; there are player"),
        ({"player_id": "stake"}, "player_id: is a decimal, and a text is wanted"),
        ({"filter": "stake"}, "filter: is a decimal, and a boolean is wanted"),
        ({"identity": ["id"]}, "identity: there is no column 'id'"),
        ({"currency": "EUR"}, r"events\[0\].currency: there is no column 'EUR'"),
        ({"backfill": "yes"}, r"backfill: there is no column"),
        (
            {"events": [{"type": {"is": "bet.plcd"}, "amount": "stake"}]},
            r"events\[0\].type: unknown event type",
        ),
    ],
)
def test_a_mapping_is_checked_against_the_file(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidMapping, match=message):
        BoundMapping(a_mapping(**changes), FILE)


def test_an_optional_column_may_be_absent() -> None:
    columns = a_mapping().columns
    optional: dict[str, Any] = {
        name: {"type": c.kind, "zone": "UTC"} for name, c in columns.items()
    }
    optional["won"] = {"type": "decimal", "optional": True}
    with exact_arithmetic():
        rule = {"type": {"is": "bet.placed"}, "amount": "coalesce(won, stake)"}
        bound = BoundMapping(a_mapping(columns=optional, events=[rule]), ["player", "stake", "at"])
        assert bound.events(["x", "2", "2020-05-01"])[0].amount == 2
