"""Own measures for tests: every aggregate, and where rules on texts, numbers and booleans."""

from __future__ import annotations

from typing import Any

from crm.domain.measure_definitions import parse_measures

CASHOUT: dict[str, Any] = {
    "name": "cashout",
    "event": "bet.settled",
    "where": {"result": "won"},
    "property": "x",
    "scale": 100,
    "aggregate": "mean",
    "meaning": "cash-out multiplier of won bets",
}
RAW: list[dict[str, Any]] = [
    CASHOUT,
    {
        "name": "spin_x", "event": ["custom.spin", "bet.placed"], "property": "x",
        "scale": 1_000_000, "aggregate": "sum", "meaning": "x of spins and bets",
    },
    {
        "name": "tagged", "event": ["custom.spin", "deposit.completed", "bet.placed"],
        "where": {"tag": ["won", 1, True, 'é"', 2.5]}, "aggregate": "count",
        "meaning": "tagged events",
    },
    {
        "name": "tagged", "event": ["custom.spin", "deposit.completed"],
        "where": {"tag": ["1", 0, False]},
        "aggregate": "days", "meaning": "days with a tagged event",
    },
    {
        "name": "whole_x", "event": "session.started", "where": {"tag": [1, False]},
        "property": "x", "aggregate": "mean", "meaning": "x in whole numbers",
    },
]  # fmt: skip
OWN = parse_measures(RAW)
# what a property may hold: halves, doubles that round otherwise, edges of size, what is no number
VALUES: list[object] = [
    1.27, 1.005, -1.005, 0.5, 2.5, -2.5, 0, -0.0, 7, 1.0, 5e-7, 4.9e-7, 1e-300, 1e300, 1e15, 1e13,
    10000000000000.02, -1e15, 123456789012.345, 0.285, "1.27", "", True, None, [1], {"a": 1}, ...,
]  # fmt: skip
TAGS: list[object] = [
    "won", "Won", 1, 1.0, True, False, "1", 'é"', 2.5, 0, None, ["won"], {"a": 1}, ...,
]  # fmt: skip
