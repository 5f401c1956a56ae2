"""How hard fault experiments are: a short profile for every run, a long one for `make chaos`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """`kills` of an owner, `faults` of other kinds, with `between` requests from one to the next.

    Experiments without a fault in time send `requests`.
    """

    kills: int
    faults: int
    between: int
    requests: int
    seed: int = 1


PROFILES = {  # the long one kills an owner about every 5 s for 5 minutes
    "short": Profile(kills=2, faults=1, between=10, requests=20),
    "long": Profile(kills=60, faults=8, between=80, requests=400),
}
