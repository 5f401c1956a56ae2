"""Hypothesis strategies for rules as JSON trees: each kind of node, and joined ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from crm.domain.brands import Brand
from crm.domain.feature_list import FeatureList
from crm.domain.features import Feature
from crm.domain.rule_words import event_spellings, measure_of
from crm.domain.rules import list_for

OPERATORS = ("=", "!=", "<", "<=", ">", ">=")
TEXT_OPERATORS = ("=", "!=", "contains", "starts_with")
STEMS = ("bet_count", "ggr_amount", "win_share", "active_days", "mean_session_seconds")
NAMES = (
    "bet_count_7d", "stake_amount_24h", "ggr_amount_30d", "win_share_lifetime", "first_bet_at",
    "days_since_last_bet", "days_since_registration", "bet_count_trend_7d", "last_activity_at",
    "payment_method_count_90d",
)  # fmt: skip
Tree = dict[str, Any]


def events_of(features: FeatureList) -> tuple[str, ...]:
    """The names that `did` knows, without its other spellings of them."""
    known = set(event_spellings(features))
    return tuple(name for name in event_spellings(features) if measure_of(name) in known)


# what a text may hold that a careless writer would break on
TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\"' é𝄞,()"),
    min_size=1,
    max_size=12,
)


def literals(feature: Feature) -> st.SearchStrategy[int | str]:
    """Literals that a feature may be compared with."""
    match feature.unit:
        case "money":
            return st.integers(-300, 300_000).map(lambda n: str(Decimal(n).scaleb(-2)))
        case "share" | "number":
            decimals = 6 if feature.decimals is None else feature.decimals
            return st.integers(-5, 3_000).map(lambda n: f"{Decimal(n).scaleb(-decimals):f}")
        case "time":
            days = st.dates(date(1999, 1, 1), date(2060, 1, 1)).map(str)
            return days | st.sampled_from(["2026-01-31T18:00:00Z", "2026-07-01T01:02:03.5+05:45"])
        case _:
            return st.integers(-1, 40)


def overs() -> st.SearchStrategy[Tree]:
    """Windows that a rule states."""
    first = st.dates(date(2025, 1, 1), date(2027, 1, 1))
    return st.one_of(
        st.builds(lambda n: {"kind": "last_days", "days": n}, st.integers(1, 90)),
        st.builds(
            lambda day, more: {
                "kind": "dates",
                "first": str(day),
                "last": str(day + timedelta(days=more)),
            },
            first,
            st.integers(0, 89),
        ),
    )


def conditions(brand: Brand | None = None) -> st.SearchStrategy[Tree]:
    """Comparisons of features, and of values over windows."""
    own = [one.stem for one in brand.measures] if brand else []
    features = list_for(brand)
    named = st.sampled_from([*NAMES, *(f"{stem}_90d" for stem in own)]).flatmap(
        lambda name: of(literals(features.features[name]), {"feature": name})
    )
    over = st.tuples(st.sampled_from([*STEMS, *own]), overs()).flatmap(
        lambda both: of(
            literals(features.windowed[both[0]].feature), {"feature": both[0], "over": both[1]}
        )
    )
    return named | over


def of(value: st.SearchStrategy[int | str], rest: Tree) -> st.SearchStrategy[Tree]:
    """Every comparison of what `rest` names with such values."""
    return st.one_of(
        st.builds(_node("compare", rest), op=st.sampled_from(OPERATORS), value=value),
        st.builds(_node("between", rest), low=value, high=value),
        st.builds(_node("in", rest), values=st.lists(value, min_size=1, max_size=5)),
        st.just({"kind": "exists", **rest}),
    )


def terms(brand: Brand | None = None) -> st.SearchStrategy[Tree]:
    """What compares no number."""
    features = list_for(brand)
    event = st.sampled_from([*events_of(features), "bet.placed", "deposit_count"])
    column = {"column": "player_id"}
    return st.one_of(
        st.builds(_node("did", {}), event=event, over=overs()),
        st.builds(
            _node("did_not", {}),
            event=event,
            over=overs(),
            newcomers=st.sampled_from(["included", "excluded"]),
        ),
        st.builds(_node("text", column), op=st.sampled_from(TEXT_OPERATORS), value=TEXTS),
        st.builds(_node("text_in", column), values=st.lists(TEXTS, min_size=1, max_size=4)),
        st.builds(_node("segment", {}), segment=TEXTS),
        st.builds(_node("list", {}), list=TEXTS),
    )


def _node(kind: str, rest: Tree) -> Callable[..., Tree]:
    return lambda **more: {"kind": kind, **rest, **more}


def joined(leaf: st.SearchStrategy[Tree], max_leaves: int = 12) -> st.SearchStrategy[Tree]:
    """Rules that join such leaves."""
    return st.recursive(
        leaf,
        lambda term: st.one_of(
            st.builds(lambda t: {"kind": "not", "term": t}, term),
            st.builds(
                lambda kind, terms: {"kind": kind, "terms": terms},
                st.sampled_from(["and", "or"]),
                st.lists(term, min_size=1, max_size=3),
            ),
        ),
        max_leaves=max_leaves,
    )


def trees(brand: Brand | None = None) -> st.SearchStrategy[Tree]:
    """Rules of every kind of node."""
    return joined(conditions(brand) | terms(brand))
