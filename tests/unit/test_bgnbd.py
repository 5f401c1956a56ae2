"""BG/NBD: the published figures of CDNOW's sample, and the parameters of invented customers."""

from __future__ import annotations

import gzip
from collections import defaultdict
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from pipelines.bgnbd import Purchases, fit_bgnbd

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "cdnow" / "CDNOW_sample.txt.gz"
CUT = date(1997, 9, 30)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="no real data at ../shared/data")
def test_it_finds_the_published_parameters_and_likelihood_of_cdnow() -> None:
    days: dict[str, set[date]] = defaultdict(set)
    for line in gzip.decompress(SAMPLE.read_bytes()).decode().splitlines():
        player, _, day, *_ = line.split()
        days[player].add(datetime.strptime(day, "%Y%m%d").date())  # noqa: DTZ007 - a day has no zone
    before = {player: sorted(d for d in of if d <= CUT) for player, of in days.items()}
    purchases = Purchases(
        np.array([len(of) - 1.0 for of in before.values()]),
        np.array([(of[-1] - of[0]).days / 7 for of in before.values()]),
        np.array([(CUT - of[0]).days / 7 for of in before.values()]),
    )
    assert (purchases.repeats > 0).sum() == 946
    found = fit_bgnbd(purchases)
    assert (round(found.r, 3), round(found.alpha, 3)) == (0.243, 4.414)
    assert [found.a, found.b] == pytest.approx([0.793, 2.426], abs=5e-3)
    assert round(found.log_likelihood, 1) == -9582.4
    expected = found.expected(purchases, 39)
    assert expected.sum() == pytest.approx(1_653, abs=2)
    assert sum(sum(day > CUT for day in of) for of in days.values()) == 1_882


def test_it_finds_the_parameters_that_customers_were_invented_with() -> None:
    rng = np.random.default_rng(2)
    customers, weeks = 8_000, 40.0
    rate, leaves = rng.gamma(0.8, 1 / 5.0, customers), rng.beta(1.5, 4.0, customers)
    repeats, last = np.zeros(customers), np.zeros(customers)
    for one in range(customers):
        while (at := last[one] + rng.exponential(1 / rate[one])) < weeks:
            repeats[one], last[one] = repeats[one] + 1, at
            if rng.random() < leaves[one]:
                break
    found = fit_bgnbd(Purchases(repeats, last, np.full(customers, weeks)))
    assert [found.r, found.alpha] == pytest.approx([0.8, 5.0], rel=0.1)
    assert found.a / (found.a + found.b) == pytest.approx(1.5 / 5.5, rel=0.1)
