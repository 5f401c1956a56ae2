"""Reading a rule, at its usual and at its worst, and values over days that no window holds ready.

    .venv/bin/python bench/rules.py [--quick]

The worst is the slowest of texts made to be slow: each drives one part of the lexer, the parser,
the builder or the messages as far as 10,000 bytes allow; random ones are beside them. The grammar
is made before: once a process, for each list of own measures.
"""

from __future__ import annotations

import ast
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from bench import memory
from bench.frame import Row, Size, at_most, main
from crm.domain.errors import InvalidRule
from crm.domain.feature_table import FeatureTable
from crm.domain.rule_meaning import describe
from crm.domain.rule_text import MAX_BYTES, parse, to_text
from crm.domain.rules import from_tree, to_tree
from crm.domain.segments import compile_mask
from crm.domain.shards import shard_of
from tests.support.hostile_rules import CONDITION, NAME, hostile_texts

BRAND = memory.BRAND
PLAYERS = 1_000_000
RANDOM = 2_000
WORST_MS = 100.0
USUAL = (
    "deposit_amount_30d >= 500 and days_since_last_bet > 7 and not (bet_count in 14 days > 3)"
    " and (stake_amount in 10 days between 5 and 20 or did deposit in 5 days)"
    " and did not bet in 30 days, newcomers excluded"
)
# the same for Python's own parser, which is written in C
PYTHON = (
    "deposit_amount_30d >= 500 and days_since_last_bet > 7 and not (bet_count(14) > 3)"
    " and (5 <= stake_amount(10) <= 20 or did('deposit', 5))"
    " and did_not('bet', 30, newcomers=False)"
)


def measure(size: Size) -> Iterator[Row]:
    """The usual rule both ways, the worst texts, and masks over a table."""
    times = 20 if size == "quick" else 200
    rule = parse(USUAL, BRAND)
    tree = to_tree(rule)
    python_us = 1e6 * _best_of(times, lambda: ast.parse(PYTHON, mode="eval"))
    reference = "Python's ast.parse, in C"
    for what, call in {
        "a rule of six conditions, text to tree": lambda: parse(USUAL, BRAND),
        "the same, JSON tree to tree": lambda: from_tree(tree, BRAND),
        "the same, tree to text": lambda: to_text(rule),
        "the same, in plain words": lambda: describe(rule, BRAND),
    }.items():
        yield Row(what, 1e6 * _best_of(times, call), "us", reference, python_us)
    yield from _worst(3 if size == "quick" else 7, 100 if size == "quick" else RANDOM)
    yield from _masks(5_000 if size == "quick" else PLAYERS)


def _worst(times: int, some: int) -> Iterator[Row]:
    longest = " or ".join([f"{NAME} = {10**10 + n}" for n in range(180)])
    usual_ms = 1e3 * _best_of(times, lambda: parse(longest, BRAND))
    reference = f"a valid rule of 180 terms, {len(longest):,} bytes"
    found = {
        name: 1e3 * _best_of(times, lambda t=text: _read(t))
        for name, text in hostile_texts().items()
    }
    slowest = sorted(found, key=lambda name: -found[name])
    note = "; ".join(f"{name}: {found[name]:.1f} ms" for name in slowest[:4])
    yield Row(f"the slowest of {len(found)} hostile texts of up to {MAX_BYTES:,} bytes",
              found[slowest[0]], "ms", reference, usual_ms, (at_most(WORST_MS),), note)  # fmt: skip
    texts = [_cut(random.Random(n), longest) for n in range(some)]
    random_ms = max(1e3 * _best_of(2, lambda t=text: _read(t)) for text in texts)
    yield Row(f"the slowest of {some:,} random ones", random_ms, "ms", reference, usual_ms,
              (at_most(WORST_MS),))  # fmt: skip


def _cut(rng: random.Random, text: str) -> str:
    """Return a text as long as may be, of pieces of valid rules and of what rules are made of."""
    pieces = ["(", ")", "not ", " and ", " or ", CONDITION, USUAL, '"', "in (", ",", "1", "did "]
    found = text[: rng.randrange(len(text))]
    while len(found) < MAX_BYTES:
        found += rng.choice(pieces)
    return found[:MAX_BYTES]


def _masks(players: int) -> Iterator[Row]:
    """Masks over days that the ledger adds up, beside those that a window holds ready."""
    ids = [f"player-{n}" for n in range(players)]
    shards = np.array([shard_of(BRAND.id, player) for player in ids])
    table = FeatureTable(BRAND.zone, memory.NOW_US - memory.DAYS * memory._DAY_US)
    memory._live(table, ids, shards)
    ready = "stake_amount_30d >= 50"
    ready_ms = 1e3 * _mask_s(table, ready)
    for text in (
        "stake_amount in 14 days >= 50",
        "stake_amount in 89 days >= 50",
        "mean_stake_amount in 14 days >= 50",
        "did not bet in 14 days, newcomers excluded",
        "player_id contains '99'",
    ):
        yield Row(f"mask of {players:,} players: {text}", 1e3 * _mask_s(table, text), "ms",
                  ready, ready_ms)  # fmt: skip


def _mask_s(table: FeatureTable, text: str) -> float:
    rule = parse(text, BRAND)
    return _best_of(5, lambda: compile_mask(rule, BRAND, table, len(table)))


def _read(text: str) -> None:
    with suppress(InvalidRule):
        parse(text, BRAND)


def _best_of(times: int, call: Callable[[], object]) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


if __name__ == "__main__":
    main("rules", "Rules: reading them, and values over any days", measure)
