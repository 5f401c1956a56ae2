"""Texts of rules made to be slow or to break something, each as long as may be."""

from __future__ import annotations

from crm.domain.rule_text import MAX_BYTES
from crm.domain.rules import MAX_TERMS

CONDITION = "bet_count_7d=1"
NAME = "cancelled_withdrawal_count_lifetime"
_TIME = '"2026-01-31T18:00:00.123456+05:45"'
_DID_NOT = "did not bet from 2026-01-01 to 2026-03-31,newcomers included"


def hostile_texts() -> dict[str, str]:
    """Texts by what they are hard on; most are to be refused, some of them late."""
    full = " or ".join([CONDITION] * MAX_TERMS)
    return {
        "brackets, never closed": "(" * MAX_BYTES,
        "brackets around one condition": _around("(", ")"),
        "brackets that join two each": _around("(", f" and {CONDITION})"),
        "brackets that change and with or": _around("(", f" and {CONDITION} or {CONDITION})"),
        "not, again and again": "not " * ((MAX_BYTES - len(CONDITION)) // 4) + CONDITION,
        "conditions": _filled(CONDITION, " or "),
        "the shortest terms": _filled('list"a"', "or "),
        "as many terms as may be, then a fault": f"{full} and".ljust(MAX_BYTES - 1) + "!",
        "as many terms as may be, then a bracket": f"{full})",
        "a set of numbers": _set("bet_count_7d", "1"),
        "a set of long numbers": _set("stake_amount_7d", "123456789012345.123456789012"),
        "a set of times": _set("first_bet_at", _TIME),
        "a set of texts": _set("player_id", f'"{"a" * 120}"'),
        "did not, with dates": _filled(_DID_NOT, " or "),
        "one long number": "bet_count_7d = ".ljust(MAX_BYTES, "9"),
        "one long number, then a letter": "bet_count_7d = ".ljust(MAX_BYTES - 1, "9") + "x",
        "one long name": "a" * (MAX_BYTES - 4) + " > 1",
        "a name that is nearly many": f"{NAME}x > 1",
        "a name that is nearly many, over days": f"{NAME[:-8]}s in 3 days > 1",
        "an event that is nearly many": "did cancelled_withdrawals_deposit_bet in 3 days",
        "quotes": '"' * (MAX_BYTES - 1),
        "doubled quotes": "player_id = '" + "''" * (MAX_BYTES // 2 - 10) + "'",
        "a quote, never closed": "player_id = '".ljust(MAX_BYTES, "a"),
        "white space": " " * (MAX_BYTES - 1) + "!",
        "lines": "\n" * (MAX_BYTES - 1) + "!",
        "three-byte letters": f"player_id = '{'€' * (MAX_BYTES // 3 - 10)}'",
        "a segment's long name": f'segment "{"a" * (MAX_BYTES - 12)}"',
        "segments": _filled('segment "a"', " and "),
    }


def _around(before: str, after: str) -> str:
    times = (MAX_BYTES - len(CONDITION)) // (len(before) + len(after))
    return before * times + CONDITION + after * times


def _set(name: str, value: str) -> str:
    head = f"{name} in ("
    return f"{head}{_filled(value, ',', MAX_BYTES - len(head) - 1)})"


def _filled(one: str, between: str, size: int = MAX_BYTES) -> str:
    return between.join([one] * ((size + len(between)) // (len(one) + len(between))))
