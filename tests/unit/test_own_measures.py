"""Own measures: how they are written down, what is wrong with one, and what an event adds."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.app import run
from configs.brands import InvalidBrand, load_brands
from crm.domain.brands import Brand
from crm.domain.errors import FeatureNotFound, InvalidMeasure, InvalidRule
from crm.domain.event_columns import EventColumns
from crm.domain.feature_list import FeatureList, features_of
from crm.domain.feature_table import FeatureTable
from crm.domain.features import MEASURES
from crm.domain.measure_definitions import MAX_MEASURES, parse_measures
from crm.domain.own_measures import LARGEST, OwnMeasure, canonical, scaled
from crm.domain.ports import FeatureShards, ShardFeatures
from crm.domain.rule_text import parse
from crm.domain.times import to_us
from crm.services.player_features import columns_of, shard_features
from crm.services.segments import matching
from crm.services.verification import verify_features
from tests.support.builders import NOON, a_brand, a_logged_event
from tests.support.own_measures import CASHOUT, OWN, RAW

COUNTED: dict[str, Any] = {
    "name": "jackpot", "event": "custom.jackpot", "aggregate": "count", "meaning": "jackpots",
}  # fmt: skip
BRAND = """
id: demo
name: Demonstration
currency: {code: EUR, decimals: 2}
time_zone: Europe/Lisbon
starts_on: 2020-01-01
country: PT
"""


def _without(raw: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name != key}


# --- the file -----------------------------------------------------------------------------------


def test_a_brands_file_states_its_measures(tmp_path: Path) -> None:
    measure = """
measures:
  - name: cashout
    event: bet.settled
    where: {result: won, level: [3, 2.50, true]}
    property: multiplier
    scale: 100
    aggregate: mean
    meaning: cash-out multiplier of won bets
"""
    (tmp_path / "demo.yaml").write_text(BRAND + measure)
    (tmp_path / "other.yaml").write_text(BRAND.replace("id: demo", "id: other"))
    brands = load_brands(tmp_path)
    (cashout,) = brands["demo"].measures
    assert cashout.where == (("result", ('"won"',)), ("level", ("3", "2.5", "true")))
    assert (cashout.property_name, cashout.decimals) == ("multiplier", 2)
    assert brands["other"].measures == ()


def test_a_bad_measure_is_one_line_with_file_measure_and_key(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(
        BRAND + "measures: [{name: big, event: bet.placed, aggregate: sum, meaning: m}]\n"
    )
    with pytest.raises(InvalidBrand) as raised:
        load_brands(tmp_path)
    message = str(raised.value)
    assert re.search(r"demo\.yaml: measure 'big': property is missing", message)
    assert "\n" not in message


def test_a_bad_key_of_a_brand_is_one_line_with_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(BRAND.replace("currency:", "currency: EUR\nwas:"))
    with pytest.raises(InvalidBrand) as raised:
        load_brands(tmp_path)
    message = str(raised.value)
    assert re.search(r"demo\.yaml: .*currency: ", message)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "measures: a list"),
        ([None], "measure 1: an object with keys name"),
        ([COUNTED, {**COUNTED, "nme": 1}], "measure 'jackpot': unknown key 'nme'"),
        ([{**COUNTED, "5": 1}], "unknown key '5'"),
        *[([_without(COUNTED, key)], f"{key} is missing") for key in COUNTED],
        *[
            ([{**COUNTED, "name": name}], "name: up to 40 of a-z")
            for name in ("Big", "1st", "", "a-b", "x" * 41, None, "a b", "é")
        ],
        ([{**COUNTED, "name": "bet_count"}], "name: a built-in measure has it"),
        ([{**COUNTED, "name": "win_share"}], "name: a built-in measure has it"),
        ([{**COUNTED, "name": "bet"}], "name: bet_count_... is built in"),
        ([{**CASHOUT, "name": "stake_amount"}], "name: a built-in measure has it"),
        ([COUNTED, COUNTED], "name: another measure makes jackpot_count_... too"),
        (
            [{**CASHOUT, "name": "a_count"}, {**COUNTED, "name": "mean_a"}],
            "measure 'mean_a': name: another measure makes mean_a_count_... too",
        ),
        ([{**COUNTED, "event": "bet.plced"}], "event: unknown event type"),
        ([{**COUNTED, "event": []}], "event: a type, or a list of 1 to 20"),
        ([{**COUNTED, "event": {}}], "event: type is text"),
        ([{**COUNTED, "event": ["bet.placed", 5]}], "event: type is text"),
        ([{**COUNTED, "where": "won"}], "where: an object of properties"),
        ([{**COUNTED, "where": {1: 2}}], "where: a property's name: a text"),
        ([{**COUNTED, "where": {"a": None}}], "where.a: a text, a number, true or false"),
        ([{**COUNTED, "where": {"a": [[1]]}}], "where.a: a text, a number, true or false"),
        ([{**COUNTED, "where": {"a": math.nan}}], "where.a: a text, a number, true or false"),
        ([{**COUNTED, "where": {"a": []}}], "where.a: a value, or a list of 1 to 50"),
        ([{**COUNTED, "where": {"a": "\0"}}], "where.a: a text of 1 to 128 characters"),
        ([{**COUNTED, "aggregate": "max"}], "aggregate: one of count, sum, mean, days"),
        ([{**COUNTED, "aggregate": ["sum"]}], "aggregate: one of count, sum, mean, days"),
        ([{**COUNTED, "property": "x"}], "property: goes with sum or mean"),
        ([{**COUNTED, "aggregate": "days", "scale": 10}], "scale: goes with sum or mean"),
        ([_without(CASHOUT, "property")], "property is missing: mean of what?"),
        ([{**CASHOUT, "property": 5}], "property: a text of 1 to 128 characters"),
        *[
            ([{**CASHOUT, "scale": scale}], "scale: a power of ten from 1 to 1000000")
            for scale in (0, -10, 60, 1.0, "100", True, 10**7)
        ],
        ([{**COUNTED, "meaning": ""}], "meaning: a text of 1 to 128 characters"),
        ([{**COUNTED, "name": f"m{n}"} for n in range(33)], "measures: at most 32 a brand"),
    ],
)
def test_a_wrong_measure_is_told_by_its_key(raw: object, message: str) -> None:
    with pytest.raises(InvalidMeasure, match=re.escape(message)):
        parse_measures(raw)


def test_names_are_those_that_built_in_features_have() -> None:
    features = FeatureList(OWN).features
    assert {"mean_cashout_24h", "spin_x_sum_7d", "tagged_count_90d", "tagged_days_30d"} <= set(
        features
    )
    assert "tagged_days_24h" not in features
    assert not any("." in name for name in features)
    mean = features["mean_cashout_30d"]
    assert (mean.unit, mean.decimals) == ("number", 2)
    assert mean.meaning == "mean cash-out multiplier of won bets in the last 30 days"
    assert mean.formula == 'mean(x) of bet.settled where result in ("won")'


def test_the_most_measures_fit_beside_the_built_in_ones() -> None:
    # a place among a player's days has 8 bits for the measure
    means = [{**CASHOUT, "name": f"m{n}"} for n in range(MAX_MEASURES)]
    assert len(FeatureList(parse_measures(means)).measures) <= 256


def test_built_in_measures_come_first_and_the_order_of_the_file_is_kept() -> None:
    measures = FeatureList(OWN).measures
    assert measures[: len(MEASURES)] == MEASURES
    assert [measure.name for measure in measures[len(MEASURES) :]] == [
        "mean_cashout.sum", "mean_cashout.count", "spin_x_sum", "tagged_count", "tagged_days",
        "mean_whole_x.sum", "mean_whole_x.count",
    ]  # fmt: skip


def test_a_digest_tells_what_is_counted_and_not_in_which_words() -> None:
    digests = {FeatureList(parse_measures([one])).digests[-1] for one in RAW}
    changed = [
        {**CASHOUT, "scale": 10}, {**CASHOUT, "property": "y"}, {**CASHOUT, "where": {}},
        {**CASHOUT, "event": "bet.placed"}, {**CASHOUT, "name": "other"},
    ]  # fmt: skip
    digests |= {FeatureList(parse_measures([one])).digests[-1] for one in changed}
    assert len(digests) == len(RAW) + len(changed)
    same = {**CASHOUT, "meaning": "in other words", "where": {"result": ["won", "won"]}}
    assert FeatureList(parse_measures([same])).digests == FeatureList(OWN[:1]).digests


def test_a_built_in_measure_of_what_is_not_listed_changes_with_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = FeatureList().digests
    monkeypatch.setattr("crm.domain.feature_list.PRODUCTS", ("casino", "bingo"))
    after = FeatureList()
    lacking = after.lacking(before)
    assert "other_bet_count" in lacking
    assert "bet_count" not in lacking


# --- the value rule -----------------------------------------------------------------------------

_DIGITS = st.text("0123456789", min_size=1, max_size=45)
_NUMBERS = st.builds(
    lambda sign, whole, part, power: f"{sign}{int(whole)}{part}{power}",
    st.sampled_from(["", "-"]),
    _DIGITS,
    _DIGITS.map(".{}".format) | st.just(""),
    st.integers(-60, 60).map("e{}".format) | st.just(""),
)


def _by_fractions(text: str, decimals: int) -> int | None:
    value = Fraction(text) * 10**decimals
    size = math.floor(abs(value) + Fraction(1, 2))
    return None if size > LARGEST else size if value > 0 else -size


@given(_NUMBERS, st.integers(0, 6))
@example("1.005", 2)  # as a double it is less, and would make 100
@example("-0.5", 0)
@example("1000000000000000.4", 0)
@example("1000000000000000.5", 0)
@example("-0.0", 3)
@example("1e-999999999", 2)
def test_a_number_is_scaled_exactly_and_rounded_half_away_from_zero(
    text: str, decimals: int
) -> None:
    if "e-999" in text:
        assert scaled(text, decimals) == 0  # as a fraction it would not fit
    else:
        assert scaled(text, decimals) == _by_fractions(text, decimals)


def test_a_value_does_not_depend_on_the_decimal_context_of_the_caller() -> None:
    with localcontext() as context:
        context.prec = 3
        assert scaled("123456.785", 2) == 12345679


@pytest.mark.parametrize("text", ['"1.27"', "true", "null", "[1]", '{"a":1}', '""'])
def test_only_a_json_number_has_a_value(text: str) -> None:
    assert scaled(text, 2) is None


@example("\x7f\u2028")
@given(
    st.text() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
)
def test_equal_scalars_have_one_spelling(value: str | float) -> None:
    text = msgspec.json.encode(value).decode()
    spelled = canonical(text)
    assert spelled is not None
    assert canonical(spelled) == spelled
    if isinstance(value, str):
        assert msgspec.json.decode(spelled) == value
        assert canonical(json.dumps(value)) == spelled
        assert canonical(json.dumps(value, ensure_ascii=False)) == spelled
    else:
        assert Decimal(spelled) == Decimal(text)
        assert canonical(f"{Decimal(text):f}") == spelled


def test_a_text_a_number_and_a_boolean_are_never_equal() -> None:
    assert canonical("1.0") == canonical("1") == canonical("10e-1") == "1"
    assert canonical("-0.0") == "0"
    assert len({canonical(text) for text in ("1", '"1"', "true", '"true"')}) == 4
    assert canonical('"\\u00e9"') == canonical('"é"')
    assert canonical("null") is canonical("[1]") is canonical('{"a": 1}') is None


# --- a file that was edited since the service started --------------------------------------------


class _Shards:
    """One shard of a service that was started with `brand`."""

    def __init__(self, brand: Brand) -> None:
        self.table = FeatureTable(brand.zone, to_us(NOON), features_of(brand))
        self.table.apply(EventColumns.of([a_logged_event()], self.table.features))

    async def of_shard(self, brand: str, shard: int) -> ShardFeatures:
        """Return the features of the shard."""
        return shard_features(self.table, shard, 1, 1)


class _Recount:
    name = "by nobody"

    async def of_shard(self, brand: Brand, of: ShardFeatures) -> dict[str, dict[str, int]]:
        """Return nothing: it must not come so far."""
        raise AssertionError


@pytest.mark.parametrize(("started", "edited"), [((), OWN[:1]), (OWN[:1], ())])
async def test_what_the_running_service_does_not_count_is_told_apart(
    started: tuple[OwnMeasure, ...], edited: tuple[OwnMeasure, ...]
) -> None:
    shards = _Shards(a_brand(measures=started))
    caller = a_brand(measures=edited)
    rule = parse("mean_cashout_7d > 1 or bet_count_7d > 0", a_brand(measures=OWN[:1]))
    if started:
        assert matching(shards.table, caller, rule).matches == 1
    else:
        with pytest.raises(InvalidRule, match="there is no feature 'mean_cashout_7d'"):
            matching(shards.table, caller, rule)
        with pytest.raises(FeatureNotFound, match="run `crm apply`"):
            columns_of(shards.table, ["mean_cashout_7d"])
    with pytest.raises(FeatureNotFound, match=r"changed \(mean_cashout_24h\): run `crm apply`"):
        await verify_features(
            cast("FeatureShards", shards), [_Recount()], caller, [0], lambda _done: None
        )


# --- the list on the command line ---------------------------------------------------------------


def test_a_brands_list_ends_with_its_own_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["features", "list", "--brand", "bustabit", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert listed["mean_cashout_lifetime"] == {
        "unit": "number",
        "meaning": "mean cash-out multiplier of won bets in all",
    }
    assert run(["features", "list", "--brand", "demo"]) == 0
    assert "cashout" not in capsys.readouterr().out
    assert run(["features", "list", "--brand", "nobody"]) == 1
