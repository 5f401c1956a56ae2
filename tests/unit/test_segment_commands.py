"""What `crm segments show` prints."""

from __future__ import annotations

from datetime import timedelta

from cluster.commands.saved_segments import shown
from crm.domain.saved_segments import SavedSegment, SegmentSize, Use
from tests.support.builders import NOON

SEGMENT = SavedSegment("seg_1", "demo", "Big", "rule", 2, "bet_count_7d > 1", NOON, NOON)


def test_a_segment_is_a_table_of_its_facts_uses_and_sizes() -> None:
    sizes = [SegmentSize(NOON + timedelta(hours=n), 2, 1_000 + n) for n in (1, 0)]
    used = [Use("segment", "seg_9", "Outer", 3)]
    segment = SavedSegment(
        "seg_1", "demo", "Big", "rule", 2, "bet_count_7d > 1", NOON, NOON, None, sizes[0]
    )
    assert list(shown(segment, used, sizes)) == [
        "id         seg_1",
        "brand      demo",
        "name       Big",
        "kind       rule",
        "version    2",
        "rule       bet_count_7d > 1",
        "created    2026-03-10 12:00:00 UTC",
        "changed    2026-03-10 12:00:00 UTC",
        "archived   -",
        "players    1,001",
        "",
        "named by                  version  name",
        "seg_9                           3  Outer",
        "",
        "measured                  version      players",
        "2026-03-10 13:00:00 UTC         2        1,001",
        "2026-03-10 12:00:00 UTC         2        1,000",
    ]


def test_what_is_not_there_yet_is_said() -> None:
    lines = list(shown(SEGMENT, [], []))
    assert lines[-4:] == ["", "named by   nothing", "", "measured   not yet"][-4:]
    assert "players    -" in lines
