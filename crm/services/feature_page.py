"""The list of features as a page that people read; docs/features.md is made of it."""

from __future__ import annotations

from collections.abc import Sequence

from crm.domain.features import DEFINED, DERIVED, DISTINCT, MEASURES, MOMENTS, TRENDS, WINDOWS
from crm.domain.score_columns import LISTED

Row = tuple[str, ...]

_HEAD = """# Features

Made by `crm features list --markdown`; a test holds this page against the code.

Every player has every feature, live. `GET /v1/features` lists them one by one, and
`GET /v1/players/{id}/features` reads them; rules and player clusters use the same names. A brand
may have measures of its own beside these: see [measures.md](measures.md).

**Windows.** A name ends in its window. `24h` is the current UTC hour and the 23 before it; `7d`,
`30d` and `90d` are local days of the brand, today included; `lifetime` is all. What counts days has
no `24h`. Windows move with the clock, without an event.

**Units.** Counts and seconds are integers, money is a decimal string in the brand's currency, a
share is a number with 6 decimals. A share or a mean is missing (null) where it would divide by 0.
Night ends at 06:00 local; products are casino, live, sports, poker and crash, payment methods card,
bank_transfer, pix, ewallet, voucher, crypto and cash, by `properties.product` and
`properties.method`; whatever else stands there is `other`. A session's length is
`properties.duration_s` of `session.ended`, in whole seconds.
"""


def markdown() -> str:
    """Return the page."""
    lines = [_HEAD, f"There are {len(DEFINED)}. `_W` stands for {', '.join(WINDOWS)}.", ""]
    lines += _table(
        "What events add",
        ("name", "unit", "what", "events"),
        [(f"{m.name}_W", m.unit, m.meaning, ", ".join(m.event_types) or "all") for m in MEASURES],
    )
    made: list[Row] = [(f"{d.name}_W", d.unit, d.meaning, d.source) for d in DERIVED]
    made += [(f"{d.name}_W", "count", d.meaning, d.source) for d in DISTINCT]
    made += [(t.name, "share", t.meaning, t.source) for t in TRENDS]
    lines += _table(
        "What is made of these when it is read", ("name", "unit", "what", "source"), made
    )
    times: list[Row] = [
        (f"first_{m.name}_at, last_{m.name}_at", "time", ", ".join(m.event_types)) for m in MOMENTS
    ]
    lines += _table("Times", ("names", "unit", "events"), times)
    lines += ["`days_since_...` are elapsed whole days, and change at that second.", ""]
    scores: list[Row] = [(one.name, one.unit, one.meaning) for one in LISTED]
    lines += _table("What serving models say", ("name", "unit", "what"), scores)
    lines.append("These are for rules: see [scores-live.md](scores-live.md). No model reads them.")
    return "\n".join(lines) + "\n"


def _table(title: str, head: Row, rows: Sequence[Row]) -> list[str]:
    cells = [head, tuple("---" for _ in head), *rows]
    return [f"## {title}", "", *[f"| {' | '.join(row)} |" for row in cells], ""]
