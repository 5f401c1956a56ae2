"""The grammar of a rule's text, and what is said where a text does not follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from crm.domain.errors import InvalidRule

if TYPE_CHECKING:
    from lark.exceptions import UnexpectedInput

# LALR(1): after a name `in` begins days or a set, and the next token tells which
GRAMMAR = r"""
start: any
any: all (OR all)*
all: unit (AND unit)*
?unit: NOT unit                                         -> negated
     | "(" any ")"                                      -> grouped
     | _named OPERATOR _literal                       -> compare
     | _named BETWEEN _literal AND _literal           -> between
     | NAME IN "(" _literal ("," _literal)* ")"         -> member
     | NAME over IN "(" _literal ("," _literal)* ")"    -> member
     | EXISTS _named                                  -> exists
     | NAME CONTAINS QUOTED                             -> contains
     | NAME STARTS WITH QUOTED                          -> starts_with
     | DID _event over                                  -> did
     | DID NOT _event over ["," NEWCOMERS READING]      -> did_not
     | SEGMENT QUOTED                                   -> in_segment
     | LIST QUOTED                                      -> on_list
_named: NAME | NAME over
over: IN NUMBER DAYS                                    -> last_days
    | FROM _date TO _date                               -> dates
_event: NAME | QUOTED
_date: DATE | QUOTED
_literal: NUMBER | QUOTED | DATE

AND.2: /and\b/i
OR.2: /or\b/i
NOT.2: /not\b/i
BETWEEN.2: /between\b/i
IN.2: /in\b/i
EXISTS.2: /exists\b/i
CONTAINS.2: /contains\b/i
STARTS.2: /starts\b/i
WITH.2: /with\b/i
DID.2: /did\b/i
NEWCOMERS.2: /newcomers\b/i
READING.2: /(included|excluded)\b/i
SEGMENT.2: /segment\b/i
LIST.2: /list\b/i
DAYS.2: /days?\b/i
FROM.2: /from\b/i
TO.2: /to\b/i
OPERATOR: "=" | "!=" | "<=" | "<" | ">=" | ">"
NAME: /[A-Za-z_][A-Za-z0-9_.]*/
DATE.3: /[0-9]{4}-[0-9]{2}-[0-9]{2}(?![A-Za-z0-9_.-])/
NUMBER: /-?[0-9]+(\.[0-9]+)?(?![A-Za-z0-9_.])/
QUOTED: /"([^"\n]|"")*"|'([^'\n]|'')*'/
%ignore /\s+/
"""

_WORDS = {
    "NAME": "a feature",
    "NUMBER": "a number",
    "QUOTED": "a quoted text",
    "DATE": "a date",
    "OPERATOR": "one of = != < <= > >=",
    "STARTS": "starts with",
    "READING": "included or excluded",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": "a comma",
    "$END": "the end",
}


def refuse(text: str, error: UnexpectedInput) -> NoReturn:
    """Raise InvalidRule for what the parser met, with what could stand there instead."""
    ended = getattr(getattr(error, "token", None), "type", None) == "$END"
    position = len(text.rstrip()) if ended else cast("int", error.pos_in_stream)
    if ended:
        met = "the rule ends here"
    else:
        met = f"{text[position : position + 20].split(maxsplit=1)[0]!r} does not fit here"
    wanted = getattr(error, "accepts", None) or getattr(error, "allowed", None) or ()
    words = sorted(_WORDS.get(name, name.lower()) for name in wanted)
    hint = f"; expected {', '.join(words)}" if words else ""
    raise InvalidRule(f"{met}{hint}", position) from None
