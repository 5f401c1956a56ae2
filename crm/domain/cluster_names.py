"""Names for player clusters that a marketer reads: `High rollers: stake 12x average, bets 3.1x`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_TELLING = 1.25  # closer to the average than this says nothing
_SHOWN = 2
_LEAST = 1e-3
_LAPSED_DAYS = 7  # more than the average: shorter absences say nothing

# the start of a feature's name: the word for it, and who has much of it
_WORDS = (
    ("stake_amount", "stake", "High rollers"),
    ("payout_amount", "payout", "High rollers"),
    ("deposit_amount", "deposits", "Big depositors"),
    ("deposit_count", "number of deposits", "Frequent depositors"),
    ("failed_deposit_count", "failed deposits", "Payment trouble"),
    ("withdrawal_", "withdrawals", "Withdrawers"),
    ("cancelled_withdrawal_count", "cancelled withdrawals", "Undecided withdrawers"),
    ("bet_count", "bets", "Frequent players"),
    ("win_count", "wins", "Frequent players"),
    ("loss_count", "losses", "Frequent players"),
    ("bonus_", "bonuses", "Bonus seekers"),
    ("session_count", "sessions", "Regular visitors"),
    ("days_since_registration", "days since registration", "Long-standing players"),
    ("days_since_last", "days since last seen", "Lapsed players"),
)


def names_of(clusters: Sequence[Mapping[str, float]], whole: Mapping[str, float]) -> list[str]:
    """Return a name for each cluster from its means against those of all players; all differ."""
    names: list[str] = []
    for means in clusters:
        name = _name(means, whole)
        same = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _name(means: Mapping[str, float], whole: Mapping[str, float]) -> str:
    """Name a cluster by what it has most against the average, else by what it lacks."""
    telling = _telling_ratios(means, whole)
    if not telling:
        return "Average players"
    much = [word for word, ratio in telling.items() if ratio > 1]
    first = much[0] if much else next(iter(telling))
    label = _LABELS[first] if much else _label_of_few(telling)
    rest = [word for word in telling if word != first][: _SHOWN - 1]
    others = "".join(f", {word} {_times(telling[word])}" for word in rest)
    return f"{label}: {first} {_times(telling[first])} average{others}"


def _telling_ratios(means: Mapping[str, float], whole: Mapping[str, float]) -> dict[str, float]:
    """Return by word the mean against the average where it says something, the strongest first."""
    ratios: dict[str, float] = {}
    for feature, mean in means.items():
        word = _word(feature)
        if word is None or whole[feature] <= 0 or mean < 0:
            continue
        ratio = max(mean / whole[feature], _LEAST)
        if feature.startswith("days_since") and (ratio < 1 or mean - whole[feature] < _LAPSED_DAYS):
            continue
        if max(ratio, 1 / ratio) >= _TELLING:
            ratios[word] = max(ratio, ratios.get(word, ratio), key=lambda r: abs(math.log(r)))
    return dict(sorted(ratios.items(), key=lambda entry: -abs(math.log(entry[1]))))


def _label_of_few(telling: Mapping[str, float]) -> str:
    """Tell who plays or comes little from who only stakes little."""
    return "Small-stakes players" if set(telling) <= {"stake", "payout"} else "Casual players"


def _word(feature: str) -> str | None:
    return next((word for start, word, _ in _WORDS if feature.startswith(start)), None)


def _times(ratio: float) -> str:
    """Return a ratio with two figures."""
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x"  # noqa: PLR2004 - two figures


_LABELS = {word: label for _, word, label in _WORDS}
