"""Why a player is in a rule that names segments: by their names, and as the whole of it says."""

from __future__ import annotations

from itertools import product

import pytest

from crm.domain.saved_segments import LiveSegment
from crm.services.segment_names import with_names
from crm.services.segment_rules import named
from crm.services.segment_why import why
from tests.support.builders import a_brand
from tests.support.columns import ListColumns

BRAND = a_brand()
LIVE = [
    LiveSegment("s1", BRAND.id, "Busy", 1, "bet_count_7d > 1 and bet_count_30d > 2"),
    LiveSegment("s2", BRAND.id, "Odd", 1, 'not segment "s1" or bet_count_90d = 3'),
    LiveSegment("vip", BRAND.id, "VIP", 1, None),
]
RULES = [
    'segment "Busy"',
    'segment "Odd" and bet_count_7d > 1',
    'bet_count_7d > 1 or not (segment "Odd" and segment "VIP")',
    'list "VIP" and segment "Busy" and segment "Busy"',
]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_holds_with_names_as_the_whole_of_it_does(rule: str) -> None:
    of = named(rule, BRAND, LIVE)
    for week, month, quarter, listed in product((0, 2), (0, 3), (0, 3), (False, True)):
        counts = {"bet_count_7d": [week], "bet_count_30d": [month], "bet_count_90d": [quarter]}
        whole = why(of.whole, BRAND, ListColumns(counts, lists={"vip": [listed]}))
        assert with_names(of, whole).holds is whole.holds


def test_a_list_has_its_name_however_a_rule_calls_it() -> None:
    for rule in ('segment "VIP"', 'list "VIP"', 'list "vip"'):
        of = named(rule, BRAND, LIVE)
        told = with_names(of, why(of.whole, BRAND, ListColumns({}, lists={"vip": [True]})))
        assert (told.kind, told.holds, told.text) == ("list", True, 'list "VIP"')
        assert (told.segment, told.name) == ("vip", "VIP")
