"""Wait for a condition with a deadline: no test sleeps and hopes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T], what: str, *, deadline_s: float = 30, every_s: float = 0.05
) -> T:
    """The first true value of the condition; AssertionError that says what never came."""
    end = time.monotonic() + deadline_s
    while True:
        if value := condition():
            return value
        if time.monotonic() >= end:
            raise AssertionError(_missed(what, deadline_s))
        time.sleep(every_s)


async def wait_for_async(
    condition: Callable[[], Awaitable[T]],
    what: str,
    *,
    deadline_s: float = 30,
    every_s: float = 0.05,
) -> T:
    """As wait_for, for a condition that is awaited; one that hangs is ended at the deadline."""
    try:
        async with asyncio.timeout(deadline_s):
            while not (value := await condition()):  # noqa: ASYNC110 - others make it true
                await asyncio.sleep(every_s)
            return value
    except TimeoutError as late:
        raise AssertionError(_missed(what, deadline_s)) from late


def _missed(what: str, deadline_s: float) -> str:
    return f"not within {deadline_s:g} s: {what}"
