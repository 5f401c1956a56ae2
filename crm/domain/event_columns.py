"""Events as columns: what of them the features need, as integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.events import RESULTS, LoggedEvent
from crm.domain.feature_list import BUILT_IN, FeatureList
from crm.domain.features import MEASURES, METHODS, MOMENTS, OTHER, PRODUCTS, Measure
from crm.domain.ledger import Cells, Ints, joined
from crm.domain.times import to_us

_NIGHT_ENDS = time(6)
_SATURDAY = 6  # an ordinal day modulo 7; ordinal 1 is a Monday
_LONGEST_SESSION_S = 7 * 86_400


class Kind(NamedTuple):
    """What of an event decides which measures it adds to; None where that does not matter."""

    event_type: str
    result: str | None = None
    product: str | None = None
    method: str | None = None


class AheadEvent(msgspec.Struct, array_like=True, order=True):
    """An event whose time the table's clock has not reached (clients may be 5 minutes ahead).

    As it is in the log, so that it can be counted by a list of measures of later.
    """

    occurred_at: datetime
    event_id: str  # with the time it decides the order
    shard: int
    player_id: str
    type: str
    local_day: date
    amount_minor: int | None
    properties: str
    result: str | None

    @classmethod
    def of(cls, event: Event) -> AheadEvent:
        """Keep what the features need of an event."""
        return cls(*[getattr(event, name) for name in cls.__struct_fields__])


Event: TypeAlias = LoggedEvent | AheadEvent


class _Facts(msgspec.Struct):
    product: Any = None
    method: Any = None
    duration_s: Any = None


_facts = msgspec.json.Decoder(_Facts)
_WITH_PRODUCT = frozenset({"bet.placed", "bet.settled"})
_WITH_METHOD = frozenset({"deposit.completed"})
_WITH_SECONDS = frozenset({"session.ended"})


def _all_kinds() -> list[Kind]:
    """Return every kind that some measure or moment tells from others; the first is the rest."""
    types = {t for measure in MEASURES for t in measure.event_types}
    types |= {t for moment in MOMENTS for t in moment.event_types}
    kinds = [Kind("")]
    for event_type in sorted(types):
        results = RESULTS if event_type == "bet.settled" else (None,)
        products = (*PRODUCTS, OTHER) if event_type in _WITH_PRODUCT else (None,)
        methods = (*METHODS, OTHER) if event_type in _WITH_METHOD else (None,)
        kinds += [Kind(event_type, r, p, m) for r in results for p in products for m in methods]
    return kinds


KINDS = _all_kinds()
KIND_INDEX = {kind: index for index, kind in enumerate(KINDS)}
_NO_INTS = np.zeros(0, dtype=np.int64)
_NO_CELLS = Cells(_NO_INTS, _NO_INTS, _NO_INTS)


def _adds_to(kind: Kind, measure: Measure, *, night: bool, weekend: bool) -> bool:
    return (
        (not measure.event_types or kind.event_type in measure.event_types)
        and measure.result in {None, kind.result}
        and measure.product in {None, kind.product}
        and measure.method in {None, kind.method}
        and (night or not measure.night)
        and (weekend or not measure.weekend)
    )


# by 4 * kind + 2 * night + weekend: which measures an event adds to
_ADDS = [
    [i for i, m in enumerate(MEASURES) if _adds_to(kind, m, night=night, weekend=weekend)]
    for kind in KINDS
    for night in (False, True)
    for weekend in (False, True)
]
_ADD_COUNT = np.array([len(adds) for adds in _ADDS])
_ADD_START = np.concatenate(([0], np.cumsum(_ADD_COUNT)[:-1]))
_ADD_MEASURE = np.array([index for adds in _ADDS for index in adds], dtype=np.int64)
_IS_AMOUNT = np.array([measure.adds == "amount" for measure in MEASURES])
_IS_SECONDS = np.array([measure.adds == "seconds" for measure in MEASURES])
OF_MOMENT = [
    np.array([not m.event_types or kind.event_type in m.event_types for kind in KINDS])
    for m in MOMENTS
]


@dataclass(frozen=True)
class EventColumns:
    """Events as columns of one length: player ids, and int64 arrays.

    `at` is in microseconds since 1970, `days` are ordinals of local days, `kinds` index KINDS.
    `events` themselves are asked for only if some are ahead of a table's clock.
    `own` is what they add to the brand's own measures, by the place of the event instead of a row.
    """

    events: Sequence[Event]
    player_ids: Sequence[str]
    shards: Ints
    kinds: Ints
    amounts: Ints
    seconds: Ints
    at: Ints
    days: Ints
    own: Cells = _NO_CELLS

    @classmethod
    def of(cls, events: Sequence[Event], features: FeatureList = BUILT_IN) -> EventColumns:
        """Gather the columns of `events`, as a table of `features` needs them."""
        read = [_read(event) for event in events]
        return cls(
            events,
            [event.player_id for event in events],
            _ints([event.shard for event in events]),
            _ints([kind for kind, _ in read]),
            _ints([event.amount_minor or 0 for event in events]),
            _ints([seconds for _, seconds in read]),
            _ints([to_us(event.occurred_at) for event in events]),
            _ints([event.local_day.toordinal() for event in events]),
            _own_cells(events, features) if features.own else _NO_CELLS,
        )

    def take(self, which: NDArray[np.bool_]) -> EventColumns:
        """Return the rows where `which` is set."""
        taken = np.flatnonzero(which).tolist()
        own = self.own.take(which[self.own.rows])
        return EventColumns(
            events=[self.events[i] for i in taken],
            player_ids=[self.player_ids[i] for i in taken],
            shards=self.shards[which],
            kinds=self.kinds[which],
            amounts=self.amounts[which],
            seconds=self.seconds[which],
            at=self.at[which],
            days=self.days[which],
            own=Cells((np.cumsum(which) - 1)[own.rows], own.measures, own.values),
        )

    def at_places(self, places: Ints) -> EventColumns:
        """Return the same events in another order: `places` has each once."""
        moved = np.empty(len(places), dtype=np.int64)
        moved[places] = np.arange(len(places))
        own, ordered = self.own, places.tolist()
        return EventColumns(
            events=[self.events[i] for i in ordered],
            player_ids=[self.player_ids[i] for i in ordered],
            shards=self.shards[places],
            kinds=self.kinds[places],
            amounts=self.amounts[places],
            seconds=self.seconds[places],
            at=self.at[places],
            days=self.days[places],
            own=Cells(moved[own.rows], own.measures, own.values),
        )

    def cells(self, rows: Ints, zone: ZoneInfo) -> tuple[Cells, Ints]:
        """Return what the events add to the players' `rows`: one cell an event and measure.

        Also the place of each cell's event in these columns.
        """
        variants = 4 * self.kinds + 2 * self._at_night(zone) + at_weekend(self.days)
        ones = np.ones(len(rows), dtype=np.int64)
        cells, event = added(variants, rows, ones, self.amounts, self.seconds)
        if not len(self.own.rows):
            return cells, event
        own = Cells(rows[self.own.rows], self.own.measures, self.own.values)
        return joined([cells, own]), np.concatenate((event, self.own.rows))

    def _at_night(self, zone: ZoneInfo) -> Ints:
        """Return 1 where the local day's night, which ends at 06:00 local, is not over."""
        days, place = np.unique(self.days, return_inverse=True)
        ends = _ints([night_end(day, zone) for day in days.tolist()])
        return np.array(self.at < ends[place], dtype=np.int64)


def at_weekend(days: Ints) -> Ints:
    """Return 1 where a day, an ordinal, is a Saturday or Sunday."""
    weekday = days % 7
    return np.array((weekday == 0) | (weekday == _SATURDAY), dtype=np.int64)


def added(
    variants: Ints, rows: Ints, counts: Ints, amounts: Ints, seconds: Ints
) -> tuple[Cells, Ints]:
    """Return what events add to `rows`: a cell for each measure, and the place of its event.

    A variant is 4 x kind + 2 x night + weekend; `counts` says for how many events a place stands.
    """
    sizes = _ADD_COUNT[variants]
    event = np.repeat(np.arange(len(rows)), sizes)
    offsets = np.arange(len(event)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    measures = _ADD_MEASURE[np.repeat(_ADD_START[variants], sizes) + offsets]
    values = counts[event]
    for adds, column in ((_IS_AMOUNT, amounts), (_IS_SECONDS, seconds)):
        which = adds[measures]
        values[which] = column[event[which]]
    return Cells(rows[event], measures, values), event


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


@lru_cache(maxsize=8192)
def night_end(day: int, zone: ZoneInfo) -> int:
    """Return when 06:00 of a local day is: not midnight and 6 hours, as clocks change at night."""
    return to_us(datetime.combine(date.fromordinal(day), _NIGHT_ENDS, zone).astimezone(UTC))


def _own_cells(events: Sequence[Event], features: FeatureList) -> Cells:
    adds = features.adds
    found = [
        (place, measure, value)
        for place, event in enumerate(events)
        for measure, value in adds(event.type, event.properties)
    ]
    return Cells(*np.array(found, dtype=np.int64).reshape(-1, 3).T) if found else _NO_CELLS


def _read(event: Event) -> tuple[int, int]:
    """Return the event's kind by index, and the seconds that it adds."""
    kind = event.type
    if kind in _WITH_PRODUCT:
        product = _listed(_read_facts(event).product, PRODUCTS)
        result = event.result if kind == "bet.settled" else None
        return KIND_INDEX[Kind(kind, result, product)], 0
    if kind in _WITH_METHOD:
        method = _listed(_read_facts(event).method, METHODS)
        return KIND_INDEX[Kind(kind, method=method)], 0
    seconds = _seconds(_read_facts(event).duration_s) if kind in _WITH_SECONDS else 0
    return KIND_INDEX.get(Kind(kind), 0), seconds


def kind_index(event_type: str, result: str | None, product: str | None, method: str | None) -> int:
    """Return the kind of an event by index, from what the lake has of its properties."""
    return KIND_INDEX.get(
        Kind(
            event_type,
            result if event_type == "bet.settled" else None,
            _listed(product, PRODUCTS) if event_type in _WITH_PRODUCT else None,
            _listed(method, METHODS) if event_type in _WITH_METHOD else None,
        ),
        0,
    )


def _read_facts(event: Event) -> _Facts:
    return _facts.decode(event.properties)


def _listed(name: object, names: tuple[str, ...]) -> str:
    return name if isinstance(name, str) and name in names else OTHER


def _seconds(value: object) -> int:
    """Return whole seconds of a session, 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= _LONGEST_SESSION_S and value == int(value) else 0
