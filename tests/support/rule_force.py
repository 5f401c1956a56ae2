"""Rules that depend on the clock in every way, and their meaning in plain Python."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from hypothesis import strategies as st

Values = Mapping[str, int | None]
Check = Callable[[Values], bool]
_OPERATORS = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_FEATURES = (
    "days_since_last_bet", "days_since_last_activity", "days_since_registration", "bet_count_24h",
    "bet_count_7d", "event_count_30d", "deposit_count_lifetime", "active_days_7d", "bet_count_90d",
)  # fmt: skip


@st.composite
def _leaves(draw: st.DrawFn) -> tuple[str, Check]:
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


def rule_texts() -> st.SearchStrategy[tuple[str, Check]]:
    """A rule as text, and whether it holds for a player's raw values."""
    return st.recursive(
        _leaves(),
        lambda term: st.one_of(
            st.lists(term, min_size=1, max_size=3).map(_joined("and", all)),
            st.lists(term, min_size=1, max_size=3).map(_joined("or", any)),
            term.map(lambda one: (f"not ({one[0]})", lambda values: not one[1](values))),
        ),
        max_leaves=5,
    )
