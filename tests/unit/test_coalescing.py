"""Coalescing: many callers, few calls, everybody gets his own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from crm.services.coalescing import Coalescer


class Calls:
    """A `send` that waits until the test lets it go."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.go = asyncio.Event()
        self.refused: set[int] = set()

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.sent.append(list(items))
        await self.go.wait()
        if self.refused & set(items):
            raise ConnectionError("refused")
        return [item * 10 for item in items]


def _submit(
    coalescer: Coalescer[int, int], *calls: Sequence[int]
) -> list[asyncio.Task[Sequence[int]]]:
    return [asyncio.create_task(coalescer.submit(items)) for items in calls]


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_waits_while_a_call_is_in_flight_goes_in_one_call() -> None:
    calls = Calls()
    callers = _submit(Coalescer(calls, most=100, in_flight=1, worth=1), [1], [2, 3], [4])
    await _settled()
    assert calls.sent == [[1]]
    calls.go.set()
    assert await asyncio.gather(*callers) == [[10], [20, 30], [40]]
    assert calls.sent == [[1], [2, 3, 4]]


async def test_no_more_calls_are_in_flight_than_allowed() -> None:
    calls = Calls()
    callers = _submit(Coalescer(calls, most=1, in_flight=2, worth=1), [1], [2], [3])
    await _settled()
    assert calls.sent == [[1], [2]]
    calls.go.set()
    assert await asyncio.gather(*callers) == [[10], [20], [30]]


async def test_a_call_holds_at_most_so_many_items_unless_one_caller_has_more() -> None:
    calls = Calls()
    calls.go.set()
    callers = _submit(Coalescer(calls, most=2, in_flight=1, worth=1), [1], [2], [3], [4, 5, 6], [7])
    await asyncio.gather(*callers)
    assert calls.sent == [[1], [2, 3], [4, 5, 6], [7]]


async def test_an_error_reaches_the_callers_of_its_call_only_and_later_calls_go_on() -> None:
    calls = Calls()
    calls.refused = {1}
    callers = _submit(Coalescer(calls, most=100, in_flight=1, worth=1), [1], [2])
    await _settled()
    calls.go.set()
    first, second = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(first, ConnectionError)
    assert second == [20]


async def test_a_caller_that_gives_up_takes_nobody_with_him() -> None:
    calls = Calls()
    callers = _submit(Coalescer(calls, most=100, in_flight=1, worth=1), [0], [1], [2])
    await _settled()
    callers[1].cancel()
    calls.go.set()
    with pytest.raises(asyncio.CancelledError):
        await callers[1]
    assert await callers[2] == [20]


async def test_few_items_wait_for_the_call_under_way_and_many_do_not() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, most=100, in_flight=2, worth=3)
    callers = _submit(coalescer, [1], [2], [3])
    await _settled()
    assert calls.sent == [[1]]
    callers += _submit(coalescer, [4, 5])
    await _settled()
    assert calls.sent == [[1], [2, 3, 4, 5]]
    calls.go.set()
    await asyncio.gather(*callers)
