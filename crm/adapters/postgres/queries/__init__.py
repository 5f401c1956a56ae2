"""Named SQL: each query of a .sql file has a name and a why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def load(noun: str) -> Mapping[str, str]:
    """Return the queries of `noun`.sql by name."""
    text = (files(__package__) / f"{noun}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    named = zip(parts[::2], parts[1::2], strict=True)
    return MappingProxyType({name: sql.strip().removesuffix(";") for name, sql in named})
