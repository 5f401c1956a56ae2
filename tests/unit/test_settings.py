"""Settings: where they come from, and what a wrong one is told."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from configs.settings import BadSettings, load_settings


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRM_CONFIG", "CRM_API__PORT", "CRM_SHARDS__OWNERS", "CRM_POSTGRES__DSN"):
        monkeypatch.delenv(name, raising=False)


def test_an_own_file_goes_over_the_defaults_and_the_environment_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("api: {port: 8100}\nshards: {owners: 5}\n")
    monkeypatch.setenv("CRM_CONFIG", str(own))
    monkeypatch.setenv("CRM_SHARDS__OWNERS", "6")
    settings = load_settings()
    assert (settings.api.port, settings.shards.owners, settings.api.replicas) == (8100, 6, 2)


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("CRM_API__PORT", "eighty", "api.port"),
        ("CRM_API__PORT", "99999", "api.port"),
        ("CRM_RAY__DASHBOARD_PORT", "-7", "ray.dashboard_port"),
        ("CRM_API__PROT", "80", "api.prot"),
        ("CRM_SHARDS__OWNERS", "1.5", "shards.owners"),
    ],
)
def test_a_wrong_value_is_one_line_with_its_path_and_without_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, path: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as raised:
        load_settings()
    message = str(raised.value)
    assert path in message
    assert "\n" not in message
    assert value not in message


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_CONFIG", "/nowhere/crm.yaml")
    with pytest.raises(BadSettings, match=r"/nowhere/crm\.yaml"):
        load_settings()


def test_settings_travel_to_another_process() -> None:
    settings = load_settings()
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301  # our own bytes
