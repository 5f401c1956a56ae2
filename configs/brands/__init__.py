"""Brands from their YAML files."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from crm.domain.brands import Brand, Currency
from crm.domain.errors import InvalidMeasure
from crm.domain.measure_definitions import parse_measures


class InvalidBrand(ValueError):
    """A brand's file cannot be used; the message names file and key."""


class _CurrencyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    code: Annotated[str, Field(pattern=r"^[A-Z]{3,8}$")]
    decimals: Annotated[int, Field(ge=0, le=8)]


class _BrandFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    name: str
    currency: _CurrencyFile
    time_zone: str
    starts_on: date
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    products: list[str] = []
    measures: Any = []

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            message = f"no such time zone: {value!r} (use a name such as America/Sao_Paulo)"
            raise ValueError(message) from error
        return value


def load_brands(folder: Path) -> dict[str, Brand]:
    """Return the brands of `folder` by id, in file name order; raises InvalidBrand."""
    brands: dict[str, Brand] = {}
    for path in sorted(folder.glob("*.yaml")):
        brand = _load_brand(path)
        if brand.id in brands:
            message = f"{path}: brand id {brand.id!r} is used by another file"
            raise InvalidBrand(message)
        brands[brand.id] = brand
    if not brands:
        message = (
            f"{folder}: no brand is configured; add a YAML file (see configs/brands/demo.yaml)"
        )
        raise InvalidBrand(message)
    return brands


def _load_brand(path: Path) -> Brand:
    try:
        read = _BrandFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        measures = parse_measures(read.measures)
    except InvalidMeasure as error:
        message = f"{path}: {error.message}"
        raise InvalidBrand(message) from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        message = f"{path}: {'; '.join(faults)}"
        raise InvalidBrand(message) from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        message = f"{path}: {' '.join(str(error).split())}"
        raise InvalidBrand(message) from error
    return Brand(
        id=read.id,
        name=read.name,
        currency=Currency(read.currency.code, read.currency.decimals),
        time_zone=read.time_zone,
        starts_on=read.starts_on,
        country=read.country,
        products=tuple(read.products),
        measures=measures,
    )
