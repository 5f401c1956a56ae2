"""The benchmarks' frame: what is met, what is kept, and the page. No figure is taken here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import frame
from bench.frame import (
    Result,
    Row,
    Size,
    at_least,
    at_most,
    times_at_least,
    times_at_most,
)
from bench.page import read_results, write_page


@pytest.mark.parametrize(
    ("targets", "met"),
    [
        ((), None),
        ((at_least(90),), True),
        ((at_least(90.1),), False),
        ((at_most(90),), True),
        ((at_most(89.9),), False),
        ((times_at_least(3),), True),
        ((times_at_most(2.9),), False),
        ((at_least(1), times_at_least(4)), False),
    ],
)
def test_a_row_is_met_when_each_of_its_targets_is(
    targets: tuple[frame.Target, ...], met: bool | None
) -> None:
    assert Row("rate", 90, "req/s", "plain", 30, targets).met is met


def test_a_target_on_a_ratio_without_a_reference_is_not_met() -> None:
    assert Row("rate", 90, "req/s", targets=(times_at_least(1),)).met is False


def test_a_benchmark_keeps_its_rows_and_the_page_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Row("ingest", 30_000, "events/s", "COPY", 60_000, (at_least(25_000), times_at_least(0.35))),
        Row("a | b", 1.25, "s", targets=(at_most(1),), note="too slow"),
    ]

    def measure(size: Size) -> Iterator[Row]:
        assert size == "quick"
        yield from rows

    monkeypatch.setattr(frame, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fake.py", "--quick"])
    frame.main("fake", "A fake", measure, lambda: {"peer": "1.2"})
    assert "A fake" in capsys.readouterr().out
    (found,) = read_results(tmp_path / "quick", ["absent", "fake"])
    assert found.rows == rows
    write_page(tmp_path / "docs" / "page.md", [found])
    page = (tmp_path / "docs" / "page.md").read_text()
    assert (
        "| ingest | 30,000 events/s | COPY: 60,000 | 0.50 x | ≥ 25,000, ≥ 0.35 x | yes |  |" in page
    )
    assert "| a / b | 1.25 s |  |  | ≤ 1.00 | no | too slow |" in page
    assert "- Targets: 1 of 2 are met; not met: a | b." in page
    for fact in (found.machine, found.commit, found.at, "peer 1.2", "ray ", "postgresql "):
        assert fact in page


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    row = Row("what", 1, "s", "other", 2.0, (times_at_most(1.2),))
    result = Result("one", "One", "usual", [row], 3.0, "2026", "abc", "a machine", {"x": "1"})
    result.write(tmp_path)
    assert json.loads((tmp_path / "one.json").read_text())["commit"] == "abc"
    assert Result.read(tmp_path / "one.json") == result
