"""The features of one brand: the built-in list, and after it what the brand's own measures add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b, sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from crm.domain.brands import Brand
from crm.domain.features import (
    DEFINED,
    MEASURES,
    METHODS,
    PRODUCTS,
    WINDOWS,
    Defined,
    Edge,
    Feature,
    Measure,
    over,
)
from crm.domain.own_measures import OwnMeasure

_DIGEST_BYTES = 8
_READING = 1  # raise it when event_columns.py comes to read a night, a session ... otherwise
_properties = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class FeatureList:
    """All that is derived of `own`; measures are known by their place in `measures`."""

    own: tuple[OwnMeasure, ...] = ()

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """Every total that is kept, the built-in ones first; some are no features."""
        return (*MEASURES, *(measure for one in self.own for measure in one.stored()))

    @cached_property
    def index(self) -> dict[str, int]:
        """The place of each measure, by name."""
        return {measure.name: place for place, measure in enumerate(self.measures)}

    @cached_property
    def once_a_day(self) -> NDArray[np.bool_]:
        """Which measures count a player's day once."""
        return np.array([measure.once_a_day for measure in self.measures])

    @cached_property
    def defined(self) -> dict[str, Defined]:
        """How each feature is read, by name, in the order in which they are shown."""
        return DEFINED | {one.feature.name: one for own in self.own for one in _defined(own)}

    @cached_property
    def features(self) -> dict[str, Feature]:
        """The features by name."""
        return {name: one.feature for name, one in self.defined.items()}

    @cached_property
    def windowed(self) -> dict[str, Defined]:
        """What can be read over any window, by its name without one; here over 30 days."""
        return {
            name.removesuffix("_30d"): one
            for name, one in self.defined.items()
            if one.window == "30d"
        }

    @cached_property
    def plain(self) -> dict[str, list[str]]:
        """By window, the names that the measures' totals have or would have as features."""
        return {w: [f"{measure.name}_{w}" for measure in self.measures] for w in WINDOWS}

    @cached_property
    def made(self) -> dict[str, Defined]:
        """The features that are made of several totals."""
        return {
            name: one
            for name, one in self.defined.items()
            if not isinstance(one.definition, Measure | Edge)
        }

    @cached_property
    def edges(self) -> dict[str, Edge]:
        """The features that are first or last times, or days since."""
        return {
            name: one.definition
            for name, one in self.defined.items()
            if isinstance(one.definition, Edge)
        }

    def adds(self, event_type: str, properties: str) -> list[tuple[int, int]]:
        """Return (measure, value) of what an event adds to the brand's own measures."""
        counted = self._by_type.get(event_type)
        if counted is None:
            return []
        facts = _properties.decode(properties)
        found = []
        for own, place in counted:
            value = own.adds(facts)
            if value is not None:
                found.append((place, value))
                if own.aggregate == "mean":
                    found.append((place + 1, 1))
        return found

    @cached_property
    def _by_type(self) -> dict[str, list[tuple[OwnMeasure, int]]]:
        found: dict[str, list[tuple[OwnMeasure, int]]] = {}
        for own in self.own:
            for event_type in own.event_types:
                found.setdefault(event_type, []).append((own, self.index[own.stored()[0].name]))
        return found

    @cached_property
    def version(self) -> str:
        """A SHA-256 that changes with any feature's name, unit or meaning: trainings note it."""
        known = sha256(b"".join(self.digests))
        known.update(msgspec.json.encode(list(self.features.values())))
        return known.hexdigest()

    # --- snapshots know measures by their digests -----------------------------------------------

    @cached_property
    def digests(self) -> list[bytes]:
        """A digest of each measure's name and of all that decides what it adds up to."""
        built_in = [_digest(measure, None) for measure in MEASURES]
        return built_in + [_digest(measure, own) for own in self.own for measure in own.stored()]

    def places(self, digests: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the place of each measure of another list in this one; -1: it is not in here."""
        ours = {digest: place for place, digest in enumerate(self.digests)}
        return np.array([ours.get(digest, -1) for digest in digests], dtype=np.int64)

    def lacking(self, digests: Sequence[bytes]) -> list[str]:
        """Return the names of our measures that another list lacks, or defines otherwise."""
        theirs = set(digests)
        names = zip(self.measures, self.digests, strict=True)
        return [measure.name for measure, digest in names if digest not in theirs]


BUILT_IN = FeatureList()


@lru_cache(maxsize=256)
def _list_of(own: tuple[OwnMeasure, ...]) -> FeatureList:
    return FeatureList(own)


def features_of(brand: Brand) -> FeatureList:
    """Return the list of a brand, the same object each time."""
    return _list_of(brand.measures) if brand.measures else BUILT_IN


def _defined(own: OwnMeasure) -> list[Defined]:
    meaning = f"mean {own.meaning}" if own.aggregate == "mean" else own.meaning
    decimals = own.decimals if own.unit == "number" else None
    return [
        Defined(
            Feature(
                f"{own.stem}_{window}", own.unit, f"{meaning} {over(window)}", own.formula,
                decimals=decimals,
            ),
            own.derived() or own.stored()[0],
            window,
        )
        for window in (WINDOWS[1:] if own.aggregate == "days" else WINDOWS)
    ]  # fmt: skip


def _digest(measure: Measure, own: OwnMeasure | None) -> bytes:
    """Return a digest that changes with what the measure means, not with its wording."""
    parts = (
        _READING,
        measure.name,
        sorted(measure.event_types),
        measure.adds,
        measure.result,
        (measure.product, PRODUCTS) if measure.product else None,  # `other` is what is not listed
        (measure.method, METHODS) if measure.method else None,
        (measure.night, measure.weekend, measure.once_a_day),
        (sorted(own.where), own.property_name, own.decimals) if own else None,
    )
    return blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).digest()
