"""Rules that depend on the clock in every way, and their meaning in plain Python."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

Values = Mapping[str, Any]  # raw integers, or texts; None is missing
Check = Callable[[Values], bool]
_OPERATORS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_FEATURES = (
    "days_since_last_bet", "days_since_last_activity", "days_since_registration", "bet_count_24h",
    "bet_count_7d", "event_count_30d", "deposit_count_lifetime", "active_days_7d", "bet_count_90d",
)  # fmt: skip


# as a rule writes them, and in raw integers
_LITERALS = {
    "cluster": [("1", 1), ("2", 2), ("3", 3)],
    "churn_probability": [
        ("0.1", 100_000), ("0.4", 400_000), ("0.6", 600_000), ("0.85", 850_000)
    ],
    "predicted_value": [("-10", -1_000), ("0", 0), ("12.5", 1_250)],
}  # fmt: skip


@st.composite
def feature_leaves(draw: st.DrawFn) -> tuple[str, Check]:
    name = draw(st.sampled_from(_FEATURES))
    sign = draw(st.sampled_from(sorted(_OPERATORS)))
    wanted = draw(st.sampled_from([0, 1, 2, 3, 5, 7, 14, 30]))

    def holds(values: Values) -> bool:
        value = values[name]
        return value is not None and bool(_OPERATORS[sign](value, wanted))

    return f"{name} {sign} {wanted}", holds


def _joined(word: str, all_: Callable[[list[bool]], bool]) -> Callable[..., tuple[str, Check]]:
    def join(terms: list[tuple[str, Check]]) -> tuple[str, Check]:
        text = f" {word} ".join(f"({text})" for text, _ in terms)
        return text, lambda values: all_([holds(values) for _, holds in terms])

    return join


@st.composite
def score_leaves(draw: st.DrawFn) -> tuple[str, Check]:
    """A condition on what serving models say."""
    name = draw(st.sampled_from(["cluster", "churn_probability", "churn_rank", "predicted_value"]))
    if name == "churn_rank":
        ranks = draw(st.sets(st.sampled_from(["low", "medium", "high", "critical"]), min_size=1))
        some = ", ".join(f'"{rank}"' for rank in sorted(ranks))
        return f"churn_rank in ({some})", lambda values: values["churn_rank"] in ranks
    sign = draw(st.sampled_from(sorted(_OPERATORS)))
    written, wanted = draw(st.sampled_from(_LITERALS[name]))

    def holds(values: Values) -> bool:
        value = values[name]
        return value is not None and bool(_OPERATORS[sign](value, wanted))

    return f"{name} {sign} {written}", holds


def rule_texts(
    leaves: st.SearchStrategy[tuple[str, Check]] | None = None,
) -> st.SearchStrategy[tuple[str, Check]]:
    """A rule as text, and whether it holds for a player's raw values."""
    return st.recursive(
        feature_leaves() if leaves is None else leaves,
        lambda term: st.one_of(
            st.lists(term, min_size=1, max_size=3).map(_joined("and", all)),
            st.lists(term, min_size=1, max_size=3).map(_joined("or", any)),
            term.map(lambda one: (f"not ({one[0]})", lambda values: not one[1](values))),
        ),
        max_leaves=5,
    )
