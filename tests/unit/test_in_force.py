"""What `crm apply` holds against what is in force."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cluster import in_force
from cluster.layout import Layout
from configs.settings import Settings, load_settings
from crm.domain.rates import Rates, Series
from tests.support.builders import a_brand
from tests.support.own_measures import OWN

ONE = Rates({("USD", "EUR"): Series([date(2026, 1, 1)], [Decimal("0.9")], [Decimal(1)])})
OTHER = Rates({("USD", "EUR"): Series([date(2026, 1, 1)], [Decimal("0.8")], [Decimal(1)])})


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def test_the_same_files_are_the_same_and_a_port_is_no_change(settings: Settings) -> None:
    brands = {"demo": a_brand(measures=OWN)}
    first = in_force.digests(brands, ONE, settings)
    again = in_force.digests({"demo": a_brand(measures=OWN)}, ONE, settings)
    port = settings.model_copy(update={"api": replace(settings.api, port=12_345)})
    assert first == again == in_force.digests(brands, ONE, port)


def test_brands_concern_the_owners_and_rates_and_settings_all_others(settings: Settings) -> None:
    brands = {"demo": a_brand()}
    before = in_force.digests(brands, ONE, settings)
    more = in_force.digests({"demo": a_brand(measures=OWN)}, ONE, settings)
    assert more.owners != before.owners
    assert more.others != before.others
    after = in_force.digests(brands, OTHER, settings)
    assert after.owners == before.owners
    assert after.others != before.others


def _changed(settings: Settings, part: str, name: str) -> Settings:
    """Change one setting, to whatever it is not."""
    group: Any = getattr(settings, part)
    return settings.model_copy(update={part: replace(group, **{name: f"not {name}"})})


def test_whatever_replicas_and_keepers_are_started_with_is_in_the_digest(
    settings: Settings,
) -> None:
    brands = {"demo": a_brand()}
    before = in_force.digests(brands, ONE, settings)
    parts = ("api", "live", "predictions", "segments", "retrains", "lake")
    named = [(part, one.name) for part in parts for one in fields(getattr(settings, part))]
    told = [
        (part, name)
        for part, name in [*named, ("shards", "coalesce")]
        if in_force.digests(brands, ONE, _changed(settings, part, name)).others != before.others
    ]
    assert ("retrains", "plans") in told
    unchanged = {*named, ("shards", "coalesce")} - set(told)
    assert unchanged == {("api", "port"), ("lake", "uri")}, "an instance has these for life"


def test_what_stopped_half_way_is_in_force_nowhere(settings: Settings, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.run.mkdir()
    assert in_force.read(layout) is None
    known = in_force.digests({"demo": a_brand()}, ONE, settings)
    in_force.note(layout, known)
    assert in_force.read(layout) == known
    in_force.forget(layout)
    assert in_force.read(layout) is None
