"""The settings of one process: crm.yaml, the file CRM_CONFIG over it, CRM_* over both."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from actors.settings import RetrainSettings, SegmentSettings, ShardSettings
from cluster.settings import DemoSettings, RaySettings
from crm.adapters.lake import LakeSettings
from crm.adapters.mlflow_runs import MlflowSettings
from crm.adapters.postgres.settings import PostgresSettings
from crm.adapters.redis.settings import RedisSettings
from crm.adapters.vault import VaultSettings
from deployments.settings import ApiSettings, LiveSettings, PredictionSettings

CLONE = Path(__file__).resolve().parents[1]
DEFAULTS = CLONE / "configs" / "crm.yaml"


class BadSettings(Exception):
    """A setting is wrong; the message names its path and what is allowed, never its value."""


class Settings(BaseSettings):
    """Everything that can be configured, read once in an entry point and then passed on."""

    model_config = SettingsConfigDict(
        env_prefix="CRM_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    var_dir: Path = CLONE / "var"
    brands_dir: Path = CLONE / "configs" / "brands"
    rates_file: Path = CLONE / "configs" / "rates.csv"
    postgres: PostgresSettings = Field(default_factory=PostgresSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    lake: LakeSettings = Field(default_factory=LakeSettings)
    mlflow: MlflowSettings = Field(default_factory=MlflowSettings)
    vault: VaultSettings = Field(default_factory=VaultSettings)
    shards: ShardSettings = Field(default_factory=ShardSettings)
    segments: SegmentSettings = Field(default_factory=SegmentSettings)
    retrains: RetrainSettings = Field(default_factory=RetrainSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    live: LiveSettings = Field(default_factory=LiveSettings)
    predictions: PredictionSettings = Field(default_factory=PredictionSettings)
    ray: RaySettings = Field(default_factory=RaySettings)
    demo: DemoSettings = Field(default_factory=DemoSettings)

    @field_validator("var_dir", "brands_dir", "rates_file")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # given by name, not used
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, the strongest first."""
        files = [YamlConfigSettingsSource(settings_cls, yaml_file=file) for file in _files()]
        return (init_settings, env_settings, *files)


def load_settings() -> Settings:
    """Read the files and the environment; raises BadSettings."""
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings(_reason(error)) from error
    except (SettingsError, yaml.YAMLError) as error:
        raise BadSettings(f"settings cannot be read: {' '.join(str(error).split())}") from error


def _files() -> list[Path]:
    own = os.environ.get("CRM_CONFIG")
    if own is None:
        return [DEFAULTS]
    if not Path(own).is_file():
        raise BadSettings(f"CRM_CONFIG names {own}, which is not a file")
    return [Path(own), DEFAULTS]


def _reason(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_input=False, include_url=False):
        path = ".".join(str(part) for part in fault["loc"])
        variable = "CRM_" + "__".join(str(part).upper() for part in fault["loc"])
        faults.append(f"{path}: {fault['msg']} (set it in YAML, or as {variable})")
    return "wrong setting: " + "; ".join(faults)
