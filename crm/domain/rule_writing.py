"""The way back from a rule's tree to its text, in the one spelling that is kept."""

from __future__ import annotations

from crm.domain.rule_terms import (
    Did,
    DidNot,
    InSegment,
    OnList,
    Term,
    TextCompare,
    TextIn,
    over_text,
)
from crm.domain.rules import (
    DECIMAL,
    And,
    Between,
    Compare,
    Condition,
    Exists,
    In,
    Not,
    Or,
    Rule,
    Value,
)


def to_text(rule: Rule) -> str:
    """Return the rule as text, in the one spelling that `parse` gives back as the same tree."""
    match rule:
        case And(terms):
            return " and ".join(_grouped(t) if isinstance(t, Or) else to_text(t) for t in terms)
        case Or(terms):
            return " or ".join(to_text(term) for term in terms)
        case Not(one):
            return f"not {_grouped(one)}"
        case Compare() | Between() | In() | Exists():
            return _condition(rule)
        case _:
            return _term(rule)


def _condition(rule: Condition) -> str:
    name = rule.feature if rule.over is None else f"{rule.feature} {over_text(rule.over)}"
    match rule:
        case Compare(_, op, value):
            return f"{name} {op} {_written(value)}"
        case Between(_, low, high):
            return f"{name} between {_written(low)} and {_written(high)}"
        case In(_, values):
            return f"{name} in ({', '.join(map(_written, values))})"
        case Exists():
            return f"exists {name}"


def _term(rule: Term) -> str:
    match rule:
        case Did(event, over):
            return f"did {event} {over_text(over)}"
        case DidNot(event, over, newcomers):
            return f"did not {event} {over_text(over)}, newcomers {newcomers}"
        case TextCompare(column, op, value):
            return f"{column} {op.replace('_', ' ')} {_quoted(value)}"
        case TextIn(column, values):
            return f"{column} in ({', '.join(map(_quoted, values))})"
        case InSegment(name):
            return f"segment {_quoted(name)}"
        case OnList(name):
            return f"list {_quoted(name)}"


def _grouped(rule: Rule) -> str:
    return f"({to_text(rule)})"


def _written(value: Value) -> str:
    """Return a literal; text that is no decimal is a time."""
    number = isinstance(value, int) or DECIMAL.fullmatch(value)
    return str(value) if number else f'"{value}"'


def _quoted(text: str) -> str:
    """Return a text in quotes; one that stands in it is doubled."""
    return '"' + text.replace('"', '""') + '"'
