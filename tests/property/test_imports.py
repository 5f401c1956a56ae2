"""Rows without ids of their own: order, split and repetition change nothing."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support.imports import HEADER, RememberingShards, a_file, a_mapping, import_here

rows = st.lists(
    st.tuples(st.sampled_from(["ana", "bob", "007", "7"]), st.integers(1, 3)), max_size=12
)


def _import(shards: RememberingShards, files: list[list[tuple[str, int]]]) -> int:
    """Import the files in one command; returns the number of new rows."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            a_file(Path(folder), f"{number}.csv", HEADER + "".join(map(_line, part)))
            for number, part in enumerate(files)
        ]
        return import_here(Path(folder), shards, a_mapping(), *paths).tally.accepted


def _line(row: tuple[str, int]) -> str:
    return f"{row[0]},{row[1]},NA,2020-05-01\n"


@given(rows, st.data())
def test_any_order_and_any_split_into_files_gives_the_same_ids(
    bets: list[tuple[str, int]], data: st.DataObject
) -> None:
    whole, split = RememberingShards(), RememberingShards()
    assert _import(whole, [bets]) == len(bets)
    shuffled = data.draw(st.permutations(bets))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(bets)), max_size=3)))
    edges = [0, *cuts, len(bets)]
    files = [shuffled[a:b] for a, b in pairwise(edges)]
    assert _import(split, files) == len(bets)
    assert whole.events == split.events


@given(rows)
def test_the_same_rows_again_are_known(bets: list[tuple[str, int]]) -> None:
    shards = RememberingShards()
    _import(shards, [bets])
    before = dict(shards.events)
    assert _import(shards, [bets]) == 0
    assert _import(shards, [bets[len(bets) // 2 :], bets[: len(bets) // 2]]) == 0
    assert shards.events == before
