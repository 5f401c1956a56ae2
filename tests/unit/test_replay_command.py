"""`crm segments replay`: what is wrong is said in one line, before anything is asked of anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.app import run
from cluster.commands.replays import _show
from crm.domain.replay import Replay, Replayed, ReplayedDay
from crm.services.replays import told
from tests.support.builders import NOON, a_brand

RULE = "bet_count_7d >= 2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bet_count_7d >", "--from", "2026-10-01", "--to", "2026-10-02"], "rule ends"),
        ([RULE, "--from", "october", "--to", "2026-10-02"], "--from: a day, such as"),
        ([RULE, "--from", "2026-10-01", "--to", "2999-01-01"], "to: a day that is over"),
        ([RULE, "--from", "2026-10-02", "--to", "2026-10-01"], "ends before it begins"),
        ([RULE, "--from", "2026-10-01", "--to", "2026-10-02", "--known-by", "x"], "--known-by"),
        ([RULE, "--from", "2026-10-01", "--to", "2026-10-02", "--brand", "no"], "no such brand"),
        ([RULE, "--from", "2026-10-01", "--to", "2026-10-02"], "the service is not running"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("CRM_VAR_DIR", str(tmp_path / "var"))
    assert run(["segments", "replay", *arguments]) == 1
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")


def test_days_are_lines_and_the_last_line_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    day = NOON.date()
    asked = Replay(a_brand(), RULE, day, day)
    days = [ReplayedDay(2_000, 1_001, 4, 1, ["p1", "p2", "p3", "p4"], ["p9"])]
    _show(told(asked, Replayed(998, 1_002, days)))
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        "day            players     members   entered      left",
        "2026-03-10       2,000       1,001         4         1  +p1 +p2 +p3 -p9",
    ]
    assert last == (
        "demo: 998 members before 2026-03-10, 4 entered, 1 left, 1,001 at the end; 1,002 players"
        " were members on some day"
    )
