"""What counts as personal, where it hides, and what an error may say about it."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.domain.errors import EventRefused
from crm.domain.personal import (
    cut_personal_fields,
    holds_card,
    looks_personal,
    nothing_to_cut,
)

CARD = "4111111111111111"


def nested(depth: int, inner: object) -> dict[str, Any]:
    value = inner
    for _ in range(depth):
        value = {"a": value}
    return {"a": value}


@pytest.mark.parametrize(
    "text",
    [
        "ana@example.com",
        "write to ana.b+x@mail.example.co.uk, please",
        "https://casino.example/?who=ana%40example.com",
        "ana\uff20example.com",
        "+5511987654321",
        "+55 (11) 98765-4321",
        "call:+1 (555) 123-4567 now",
        "%2B5511987654321",
        "\uff0b5511987654321",
        "+55\u201311\u201398765\u20134321",
        "+55_11_98765_4321",
        "+\u0665\u066511987654321",
        "ana%252540example.com",
        "ana&#64;example.com",
    ],
)
def test_addresses_and_phone_numbers_are_found_in_any_writing(text: str) -> None:
    assert looks_personal(text)
    assert cut_personal_fields({"note": text}) == ({}, (("note", text),))


@pytest.mark.parametrize(
    "text",
    ["casino", "12+5", "@home", "a@b", "2026-01-31T18:00:00+10:00", "50% off", "+10 %", "1e+12345"],
)
def test_ordinary_text_stays(text: str) -> None:
    assert not looks_personal(text)
    assert cut_personal_fields({"note": text}) == ({"note": text}, ())


def test_a_phone_number_with_00_is_cut_from_text_but_a_padded_id_stays() -> None:
    assert cut_personal_fields({"note": "005511987654321"}) == ({}, (("note", "005511987654321"),))
    for name in ("round_id", "roundId", "id", "bet_ids"):
        assert cut_personal_fields({name: "005511987654321"})[1] == ()


@pytest.mark.parametrize(
    "name",
    [
        "email", "E-Mail", "e_mail", "userEmail", "contact_email_2", "player_phone",
        "customer_name",
        "firstName", "accountHolderName", "billing address", "clientIP", "remote_ip", "user.cpf",
        "device_id", "UserAgent", "cardholder_name", "card_holder", "nome", "nome_completo",
        "telefone", "emails", "phones", "first_names", "addresses", "phone_home", "ipv4",
        "remote_addr", "a" * 80 + "_email",
    ],
)  # fmt: skip
def test_a_field_is_personal_by_its_name_or_by_how_that_ends(name: str) -> None:
    kept, cut = cut_personal_fields({name: "Ana", "game": "x"})
    assert kept == {"game": "x"}
    assert [value for _, value in cut] == ["Ana"]


@pytest.mark.parametrize("name", ["game_name", "campaign_name", "ship", "zippy", "is_mobile_app"])
def test_names_that_only_sound_personal_are_kept(name: str) -> None:
    assert cut_personal_fields({name: "Ana"}) == ({name: "Ana"}, ())


def test_a_flag_under_a_personal_name_is_kept() -> None:
    assert cut_personal_fields({"email": True, "mobile": False})[1] == ()


def test_personal_values_are_found_at_any_depth_and_what_is_below_a_name_stays_whole() -> None:
    kept, cut = cut_personal_fields(
        {
            "round": {"players": [{"name": "Ana", "seat": 1}, {"name": "Rui", "seat": 2}]},
            "notes": ["fine", "mail ana@example.com"],
            "address": {"city": "Porto", "lines": ["Rua 1", None]},
            "dotted.name": {"email": "x"},
        }
    )
    assert kept == {
        "round": {"players": [{"seat": 1}, {"seat": 2}]},
        "notes": ["fine"],
        "dotted.name": {},
    }
    assert cut == (
        ("round.players.0.name", "Ana"),
        ("round.players.1.name", "Rui"),
        ("notes.1", "mail ana@example.com"),
        ("address", '{"city":"Porto","lines":["Rua 1",null]}'),
        ("dotted\\.name.email", "x"),
    )


@pytest.mark.parametrize(
    "text",
    [
        CARD,
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111 - 1111 - 1111 - 1111",
        "4111.1111.1111.1111",
        "4111\u00a01111\u20131111\u00a01111",
        "\uff14\uff11\uff11\uff11 1111 1111 1111",
        "3782 822463 10005",
        "paid 12 4111 1111 1111 1111 on 24",
        f"card{CARD}x",
        "4111%201111%201111%201111",
        "4111%25201111%25201111%25201111",
        "4111_1111_1111_1111",
        "4111/1111/1111/1111",
        "4111,1111,1111,1111",
        "4111    1111    1111    1111",
        "4111\u200b1111\u200b1111\u200b1111",
        "\u0664\u0661\u0661\u0661 1111 1111 1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "&#xFF14;111111111111111",
        "%EF%BC%94111111111111111",
        "&#x25;34111111111111111",
    ],
)
def test_a_card_number_is_refused_in_any_writing_and_any_field(text: str) -> None:
    assert holds_card(text)
    places: list[dict[str, Any]] = [
        {"note": text},
        {"deep": [{"note": text}]},
        {"email": text},
        {"email": {"note": [text]}},
        {text: 1},
        {"a": {text: 1}},
        {"email": {text: 1}},
    ]
    for properties in places:
        with pytest.raises(EventRefused) as refused:
            cut_personal_fields(properties)
        assert refused.value.code == "card_number"
        assert "1111" not in repr(refused.value)
        assert "10005" not in repr(refused.value)


@pytest.mark.parametrize("value", [int(CARD), float(CARD), Decimal(CARD)])
def test_a_card_number_is_refused_as_a_number_too(value: float) -> None:
    for properties in ({"x": value}, {"phone": value}, {"x": [value]}):
        with pytest.raises(EventRefused, match="card numbers"):
            cut_personal_fields(properties)


def test_long_ids_that_are_no_cards_are_kept() -> None:
    for text in ("4111111111111112", "1234567890123", "4" * 20, "2026-01-31 18:00:00 1234567"):
        assert cut_personal_fields({"reference": text})[0] == {"reference": text}
    digest = "a" * 8 + CARD + "b" * 8
    assert cut_personal_fields({"hash": digest})[0] == {"hash": digest}


@pytest.mark.parametrize("name", ["bet_id", "transactionId", "gameID", "id", "round_ids"])
def test_an_operators_own_number_of_13_to_19_digits_is_accepted_under_an_id(name: str) -> None:
    for value in (CARD, int(CARD), [CARD], "6" * 13, "9" * 19):
        assert cut_personal_fields({name: value}) == ({name: value}, ())
    with pytest.raises(EventRefused, match="card numbers"):
        cut_personal_fields({name: "4111 1111 1111 1111"})


@pytest.mark.parametrize("name", ["card_id", "cardId", "payment_ids", "ccId", "pan_id"])
def test_a_card_number_is_refused_under_an_id_of_a_payment(name: str) -> None:
    for value in (CARD, int(CARD), [CARD]):
        with pytest.raises(EventRefused, match="card numbers"):
            cut_personal_fields({name: value})


@pytest.mark.parametrize(
    "properties",
    [
        {"ana@example.com": 1},
        {"a": {"+5511987654321": 1}},
        {"address": {"ana@example.com": 1}},
    ],
)
def test_a_name_that_is_personal_data_is_refused_without_repeating_it(
    properties: dict[str, Any],
) -> None:
    with pytest.raises(EventRefused, match="name holds personal data") as refused:
        cut_personal_fields(properties)
    assert "ana" not in repr(refused.value)
    assert "5511" not in repr(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), -float("inf"), Decimal("NaN"), Decimal("sNaN"), [10**5000],
        2**64, -(2**63) - 1, "\0", "a\0b", "\ud800", b"x", {1, 2}, object(), {1: 2}, {"\ud800": 1},
        {"\0": 1},
    ],
)  # fmt: skip
def test_what_json_or_the_log_cannot_hold_is_refused(value: object) -> None:
    for properties in ({"x": value}, {"x": [value]}, {"email": value}, {"email": [value]}):
        with pytest.raises(EventRefused) as refused:
            cut_personal_fields(properties)
        assert refused.value.code == "invalid_field"


def test_depth_is_bounded_also_below_a_personal_name() -> None:
    assert cut_personal_fields(nested(20, "x"))[0] == nested(20, "x")
    endless: list[object] = []
    endless.append(endless)
    for properties in (nested(40, "x"), nested(100_000, "x"), {"email": endless}, {"x": endless}):
        with pytest.raises(EventRefused, match="nested over 32 deep"):
            cut_personal_fields(properties)


def test_the_path_of_a_personal_value_is_bounded_by_what_the_store_can_index() -> None:
    kept, cut = cut_personal_fields({"a" * 200: {"email": "ana@example.com"}, "b" * 300: "x"})
    assert (len(cut), len(kept)) == (1, 2)
    with pytest.raises(EventRefused, match="exceed 256 bytes"):
        cut_personal_fields({"a" * 300: {"email": "ana@example.com"}})


def test_times_and_decimals_of_an_import_are_kept() -> None:
    properties = {"at": datetime(2026, 1, 31, tzinfo=UTC), "on": date(2026, 1, 31), "x": Decimal(1)}
    assert cut_personal_fields(properties) == (properties, ())


@given(st.lists(st.integers(0, 9999).map(str), min_size=2, max_size=12))
def test_grouped_digits_are_a_card_if_some_neighbours_make_one(groups: list[str]) -> None:
    windows = (groups[i:j] for i in range(len(groups)) for j in range(i + 1, len(groups) + 1))
    assert holds_card(" ".join(groups)) == any(holds_card("".join(part)) for part in windows)


@pytest.mark.timeout(30)  # a quadratic search would take many minutes
@pytest.mark.parametrize(
    "piece", ["a", "@", "a@", "a@b", "4 ", "+1", "4", "00", "a.", "+1 ()", "5 4 "]
)
def test_a_long_text_is_searched_in_linear_time(piece: str) -> None:
    for text in (piece * 20_000, "a@b" + piece * 20_000):
        with contextlib.suppress(EventRefused):
            cut_personal_fields({"note": text})


@pytest.mark.parametrize(
    ("properties", "calm"),
    [
        ({"bet_id": "b-1", "product": "casino", "odds": 1.5, "live": True}, True),
        ({"note": "ana@example.com"}, False),
        ({"note": CARD}, False),
        ({"note": "+5511987654321"}, False),
        ({"note": "ana\uff20example.com"}, False),
        ({"note": "a\0"}, False),
        ({"email": "ana"}, False),
        ({"x": float("nan")}, False),
        ({"x": {"email": "ana"}}, False),
        ({"x": b"ana"}, False),
    ],
)
def test_a_glance_overlooks_nothing(properties: dict[str, Any], calm: bool) -> None:
    assert nothing_to_cut(properties, msgspec.json.encode(properties)) == calm
