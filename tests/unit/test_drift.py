"""Population stability: what counts as drift, and what chance explains."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from crm.domain.drift import (
    Histogram,
    NoReference,
    Thresholds,
    decode,
    drifted,
    encode,
    histogram,
    id_edges,
    psi,
    quantile_edges,
    reference,
    shift,
)
from crm.domain.models import RegisteredModel, TrainedOn
from crm.domain.ports import Columns
from crm.services.drift import OpenedModel, look

NAN = math.nan
AT = datetime(2026, 3, 10, tzinfo=UTC)
LIMITS = Thresholds(0.25, 0.25)


def _stakes(
    seed: int, players: int = 5_000, mean: float = 3.0
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).lognormal(mean, 1.0, players)


def test_psi_is_what_the_definition_says() -> None:
    # by hand: (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5)
    expected = 0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    assert psi([50, 50], [60, 40]) == pytest.approx(expected)
    assert psi([50, 50], [5, 5]) == 0


def test_players_of_the_same_kind_have_not_drifted_and_others_have() -> None:
    then = histogram(_stakes(1), quantile_edges(_stakes(1)))
    same, moved = shift("stake", then, _stakes(2)), shift("stake", then, _stakes(2, mean=4.0))
    assert not same.beyond(0.25)
    assert moved.beyond(0.25)
    assert moved.psi > 10 * same.psi


def test_a_large_index_of_few_players_is_chance() -> None:
    then = histogram(_stakes(1, 40), quantile_edges(_stakes(1, 40)))
    found = [shift("stake", then, _stakes(seed, 40)) for seed in range(2, 202)]
    assert max(one.psi for one in found) > 0.25, "the plain threshold alone would cry wolf"
    assert sum(one.beyond(0.25) for one in found) <= 4


def test_missing_values_are_a_bin_of_their_own() -> None:
    then = reference(["days"], np.array([[1.0], [2.0], [3.0], [NAN]] * 500)).features["days"]
    assert then.counts[-1] == 500
    gone = shift("days", then, np.full(2_000, NAN))
    assert gone.beyond(0.25)
    assert not shift("days", then, np.array([3.0, NAN, 2.0, 1.0] * 400)).beyond(0.01)


def test_what_was_the_same_for_all_drifts_when_it_is_not_any_more() -> None:
    then = histogram(np.full(1_000, 5.0), quantile_edges(np.full(1_000, 5.0)))
    assert not shift("k", then, np.full(900, 5.0)).beyond(0.01)
    for other in (4.0, 6.0, NAN):
        assert shift("k", then, np.array([5.0] * 500 + [other] * 500)).beyond(0.25)


def test_many_equal_values_do_not_hide_what_lies_beside_them() -> None:
    values = np.array([0.0] * 950 + [float(n) for n in range(1, 51)])
    then = histogram(values, quantile_edges(values))
    assert then.counts[:2] == [0, 950]
    assert shift("bets", then, np.full(1_000, 3.0)).beyond(0.25)


def test_each_cluster_has_a_bin_and_a_new_one_falls_into_the_last() -> None:
    assert histogram(np.array([1.0, 2.0, 2.0, 3.0, 9.0]), id_edges([1, 3, 2])).counts == [
        1,
        2,
        2,
        0,
    ]


def test_a_reference_comes_back_from_its_file() -> None:
    found = reference(["a", "b"], np.arange(40.0).reshape(20, 2), np.arange(20.0))
    assert decode(encode(found)) == found
    with pytest.raises(NoReference):
        decode(b"{}")


def test_no_player_is_no_drift() -> None:
    then = Histogram([1.0], [5, 5, 0])
    assert shift("a", then, np.empty(0)).psi == 0
    assert not drifted([shift("a", then, np.empty(0))], None, LIMITS)
    assert reference(["a"], np.empty((0, 1))).features["a"].counts == [0, 0]


def test_a_look_names_what_has_drifted_the_worst_first() -> None:
    then = np.column_stack([_stakes(1), _stakes(2), _stakes(3)])
    model = RegisteredModel(
        "m1", "demo", "churn", 1, "serving", "xgboost", AT, ["a", "b", "c"], "1", "1",
        TrainedOn(5_000, 5_000, AT, ""), {}, True, ["reference.json"],
    )  # fmt: skip
    now = np.column_stack([_stakes(4), _stakes(5, mean=3.8), _stakes(6, mean=5.0)])
    columns = Columns(AT, ["p"] * len(now), {}, {})
    opened = OpenedModel(lambda _: now, lambda values: values[:, 0])
    found = look(model, reference(model.features, then, then[:, 0]), opened, columns, LIMITS)
    assert [one.name for one in found.features] == ["c", "b", "a"]
    assert found.drifted == ["c", "b"]
    assert (found.model, found.kind, found.players) == ("m1", "churn", 5_000)
    opened = OpenedModel(lambda _: now, lambda values: values[:, 2])
    found = look(model, reference(model.features, then, then[:, 2]), opened, columns, LIMITS)
    assert found.drifted == ["c", "b", "score"]
