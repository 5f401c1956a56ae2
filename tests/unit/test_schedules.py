"""When a schedule is due: crontab's fields on a brand's clock, and intervals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from crm.domain.schedules import Cron, Schedule

LISBON = ZoneInfo("Europe/Lisbon")
AT = datetime(2026, 3, 10, 11, 30, tzinfo=UTC)  # a Tuesday; Lisbon is on UTC


@pytest.mark.parametrize(
    ("cron", "due"),
    [
        ("* * * * *", "2026-03-10T11:31"),
        ("*/15 * * * *", "2026-03-10T11:45"),
        ("30 11 * * *", "2026-03-11T11:30"),  # this very moment is over
        ("0 3 * * mon", "2026-03-16T03:00"),
        ("0 3 * * 7", "2026-03-15T03:00"),
        ("0 3 1,15 * *", "2026-03-15T03:00"),
        ("0 3 13 * fri", "2026-03-13T03:00"),  # either the 13th or a Friday: both are
        ("0 3 14 * fri", "2026-03-13T03:00"),
        ("0 0 29 feb *", "2028-02-29T00:00"),
        ("5-10/5 12 * apr-may *", "2026-04-01T11:05"),  # summer time: noon is 11:00 UTC
    ],
)
def test_the_next_moment_by_the_clock_on_the_wall(cron: str, due: str) -> None:
    assert Schedule(cron=cron).after(AT, LISBON) == datetime.fromisoformat(due + "+00:00")


def test_an_hour_that_the_clocks_skip_comes_and_one_that_they_repeat_comes_once() -> None:
    nightly = Schedule(cron="30 1 * * *")
    due = [datetime(2026, 3, 28, 12, tzinfo=UTC)]
    for _ in range(2):
        due.append(nightly.after(due[-1], LISBON))
    assert [at.date().day for at in due[1:]] == [29, 30]
    due = [datetime(2026, 10, 24, 12, tzinfo=UTC)]
    for _ in range(2):
        due.append(nightly.after(due[-1], LISBON))
    assert [at.date().day for at in due[1:]] == [25, 26]


def test_an_interval_counts_from_the_moment_given() -> None:
    assert Schedule(every_s=90).after(AT, LISBON) == AT + timedelta(seconds=90)


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
     "*/0 * * * *", "a * * * *", "5-1 * * * *", "0 0 31 feb *", "1.5 * * * *"],
)  # fmt: skip
def test_what_no_clock_can_show_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match="cron"):
        Cron.parse(cron)


@pytest.mark.parametrize("fields", [{}, {"cron": "* * * * *", "every_s": 60.0}, {"every_s": 1.0}])
def test_a_schedule_is_one_of_both(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="every_s"):
        Schedule(**fields)  # type: ignore[arg-type]  # wrong on purpose
