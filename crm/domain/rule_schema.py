"""The JSON schema of a rule's tree, made from its nodes; published as docs/rule.schema.json."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

import msgspec

from crm.domain.brands import Brand
from crm.domain.feature_list import features_of
from crm.domain.rule_terms import MAX_DAYS, Over
from crm.domain.rule_words import DATE, TEXT_COLUMNS, event_spellings
from crm.domain.rules import MAX_DEPTH, MAX_TERMS, Rule
from crm.domain.score_columns import SCORED

Schema = dict[str, Any]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"
_ABOUT = (
    f"A segment rule as a tree, nested up to {MAX_DEPTH} deep and with up to {MAX_TERMS} terms."
    " A comparison without `over` names a whole feature (bet_count_30d), one with it names it"
    f" without its window (bet_count). Days are local days of the brand, the last {MAX_DAYS} at"
    " most. Money (major units), shares and numbers with decimals are decimal text, a time is"
    " RFC 3339 or a date, all else are integers."
)


def tree_schema(brand: Brand | None = None) -> Schema:
    """Return the schema; with a `brand`, only names that it knows are valid."""
    (rule, over), defs = msgspec.json.schema_components((Rule, Over), ref_template=_REF)
    named = {"Rule": rule, "Over": over}
    found: Schema = {name: _referring(one, named) for name, one in defs.items()}
    for name in ("first", "last"):
        found["Dates"]["properties"][name] = {
            "type": "string", "format": "date", "pattern": f"^{DATE.pattern}$",
        }  # fmt: skip
    for name in ("TextCompare", "TextIn"):
        found[name]["properties"]["column"] = {"enum": list(TEXT_COLUMNS)}
    if brand is not None:
        _narrow(found, brand)
    return {
        "$schema": _DIALECT,
        "title": "Segment rule",
        "description": _ABOUT,
        **_REFERENCE["Rule"],
        "$defs": {**found, **named},
    }


_REFERENCE = {name: {"$ref": _REF.format(name=name)} for name in ("Rule", "Over")}


def _referring(schema: Any, named: Schema) -> Any:
    """Return a schema in which the unions of `named` stand by their names."""
    for name, union in named.items():
        if schema == union:
            return _REFERENCE[name]
    if isinstance(schema, dict):
        return {
            key: cleandoc(value) if key == "description" else _referring(value, named)
            for key, value in schema.items()
            if key != "default"
        }
    return [_referring(one, named) for one in schema] if isinstance(schema, list) else schema


def _narrow(found: Schema, brand: Brand) -> None:
    """Let only the brand's own names be valid."""
    features = features_of(brand)
    whole, stems = [*features.features, *SCORED], list(features.windowed)
    for name in ("Compare", "Between", "In", "Exists"):
        found[name]["if"] = {"required": ["over"], "properties": {"over": {"type": "object"}}}
        found[name]["then"] = {"properties": {"feature": {"enum": stems}}}
        found[name]["else"] = {"properties": {"feature": {"enum": whole}}}
    for name in ("Did", "DidNot"):
        found[name]["properties"]["event"] = {"enum": list(event_spellings(features))}
