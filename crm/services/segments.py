"""What one table says to a question about all its players."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from crm.domain.brands import Brand
from crm.domain.feature_table import FeatureTable
from crm.domain.segments import compile_mask, parse

SAMPLE = 10


class Matching(NamedTuple):
    """How many of the table's players match, of how many, and up to SAMPLE of them."""

    matches: int
    total: int
    sample: list[str]


def matching(table: FeatureTable, brand: Brand, rule: str) -> Matching:
    """Count the players of `table` that match `rule` (text); raises InvalidRule."""
    # its list decides: a caller's file of the brand may have been edited since the service started
    brand = replace(brand, measures=table.features.own)
    mask = compile_mask(parse(rule, brand), brand, table, len(table))
    ids = table.player_ids
    some = [ids[place] for place in np.flatnonzero(mask)[:SAMPLE].tolist()]
    return Matching(int(mask.sum()), len(table), some)
