"""A window's room follows how many are active, and buckets hold values of any size."""

from __future__ import annotations

import numpy as np

from crm.domain.ledger import Cells, Ledger
from crm.domain.windows import EVENTS, Window

MANY = 10_000


def _one_event_each(rows: range) -> Cells:
    players = np.array(rows)
    return Cells(players, np.full(len(rows), EVENTS), np.ones(len(rows), dtype=np.int64))


def test_a_window_gives_room_back_and_those_who_stay_keep_their_totals() -> None:
    window = Window(range(3), 3)
    window.fit(MANY)
    window.add(_one_event_each(range(MANY)))
    full = window.nbytes
    window.take_away(_one_event_each(range(100, MANY)))
    assert window.nbytes < full / 2
    column = window.values(EVENTS, slice(0, MANY))
    assert column.tolist() == [1] * 100 + [0] * (MANY - 100)
    window.add(_one_event_each(range(MANY)))  # and takes it again
    assert window.values(EVENTS, slice(0, MANY)).sum() == MANY + 100


def test_a_bucket_keeps_values_that_do_not_fit_four_bytes() -> None:
    ledger, rows = Ledger(), np.arange(MANY)
    values = np.where(rows % 2, 2**31, -(2**31) - 1) * 1_000
    for _ in range(2):  # the second comes to what is in order already
        ledger.add(np.full(MANY, 7), Cells(rows, np.zeros(MANY, dtype=np.int64), values))
    ((_, cells),) = ledger.between(0, 10)
    assert cells.summed().values.tolist() == (2 * values).tolist()
