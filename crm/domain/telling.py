"""What is written of segments with the events that caused it, and by when it stands."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, Protocol

from crm.domain.events import LoggedEvent
from crm.domain.membership import Transition


class Told(NamedTuple):
    """Transitions, with which all of an owner's shards stand at `clock_us` (None: nothing is live).

    `arrived` are shards that did not stand where the owner's others do, and do from now on.
    """

    owner: str
    clock_us: int | None
    transitions: Sequence[Transition]
    arrived: Sequence[int]


class Telling(Protocol):
    """What an owner has to say in its next transaction, which holds the rows of `shards` for it."""

    @property
    def shards(self) -> Set[int]:
        """The shards of which something is to be written, whatever the events cause."""

    @property
    def due(self) -> bool:
        """Whether there is something to write without any event."""

    def of(self, new: Sequence[LoggedEvent], seqs: Sequence[int], lost: Set[int]) -> Told | None:
        """Return all that is to be written with these events; nothing of the `lost` shards.

        None, if the clock has caused something in shards that are not held: begin anew.
        """


class Silence:
    """Nothing to say."""

    shards: Set[int] = frozenset()
    due = False

    def of(self, new: Sequence[LoggedEvent], seqs: Sequence[int], lost: Set[int]) -> Told:
        """Return nothing."""
        del new, seqs, lost
        return NOTHING


NOTHING = Told("", None, (), ())
SILENCE = Silence()
