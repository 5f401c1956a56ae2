"""The one list of features: what an event adds, over which windows, and what is derived on read.

Every stored aggregate is an exact integer and independent of the order of events (design.md 5).
Money is in minor units, a share in millionths, a time in microseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Unit = Literal[
    "count", "money", "seconds", "share", "days", "time", "number",
    "id", "text",  # of scores alone
]  # fmt: skip
SHARE_DECIMALS = 6
SHARE: int = 10**SHARE_DECIMALS  # a share of 1, in the integers in which shares are kept

DAYS_OF_WINDOW = {"7d": 7, "30d": 30, "90d": 90}
HOURS_OF_24H = 24
WINDOWS = ("24h", *DAYS_OF_WINDOW, "lifetime")
# what the last 7 days are held against; nobody reads them by themselves
HIDDEN_DAYS = {"14d": 14, "35d": 35}
_OVER = {"24h": "this hour and the 23 before", "lifetime": "in all"}

PRODUCTS = ("casino", "live", "sports", "poker", "crash")
METHODS = ("card", "bank_transfer", "pix", "ewallet", "voucher", "crypto", "cash")
OTHER = "other"  # any product or method that is not listed


@dataclass(frozen=True)
class Measure:
    """`adds` is what one event of `event_types` adds: 1, its amount, its seconds, or a property.

    An event counts only if it has the `result`, `product` and `method` asked for, and happened at
    night (before 06:00 local) or on a weekend where that is asked for. `once_a_day` counts the
    first event of a player's local day only.
    """

    name: str
    event_types: tuple[str, ...]
    adds: Literal["one", "amount", "seconds", "property"]
    meaning: str
    result: str | None = None
    product: str | None = None
    method: str | None = None
    night: bool = False
    weekend: bool = False
    once_a_day: bool = False

    @property
    def unit(self) -> Unit:
        """Counts are numbers, amounts are money in minor units of the brand's currency."""
        return _UNITS[self.adds]


_UNITS: dict[str, Unit] = {
    "one": "count", "amount": "money", "seconds": "seconds", "property": "number",
}  # fmt: skip


def _count(name: str, event_type: str, meaning: str) -> Measure:
    return Measure(name, (event_type,), "one", meaning)


def _amount(name: str, event_type: str, meaning: str) -> Measure:
    return Measure(name, (event_type,), "amount", meaning)


def _of_product(product: str) -> list[Measure]:
    bets, settled = ("bet.placed",), ("bet.settled",)
    return [
        Measure(f"{product}_bet_count", bets, "one", f"{product} bets placed", product=product),
        Measure(
            f"{product}_stake_amount", bets, "amount", f"money staked on {product}", product=product
        ),
        Measure(
            f"{product}_payout_amount", settled, "amount", f"money paid out on {product}",
            product=product,
        ),
    ]  # fmt: skip


def _of_method(method: str) -> Measure:
    meaning = f"completed deposits by {method.replace('_', ' ')}"
    return Measure(f"{method}_deposit_count", ("deposit.completed",), "one", meaning, method=method)


# Messages are what we do, not what the player does.
_OWN_TYPES = (
    "player.registered", "session.started", "session.ended", "deposit.requested",
    "deposit.completed", "deposit.failed", "withdrawal.requested", "withdrawal.completed",
    "withdrawal.cancelled", "bet.placed", "message.opened", "message.clicked",
)  # fmt: skip

MEASURES: tuple[Measure, ...] = (
    Measure("event_count", (), "one", "events of any type"),  # first: 0 means that all are 0
    _count("deposit_count", "deposit.completed", "completed deposits"),
    _amount("deposit_amount", "deposit.completed", "money deposited"),
    _count("failed_deposit_count", "deposit.failed", "deposits that failed"),
    _count("withdrawal_count", "withdrawal.completed", "completed withdrawals"),
    _amount("withdrawal_amount", "withdrawal.completed", "money withdrawn"),
    _count("cancelled_withdrawal_count", "withdrawal.cancelled", "withdrawals cancelled"),
    _count("bet_count", "bet.placed", "bets placed"),
    _amount("stake_amount", "bet.placed", "money staked"),
    _amount("payout_amount", "bet.settled", "money paid out on settled bets"),
    Measure("win_count", ("bet.settled",), "one", "bets settled as won", result="won"),
    Measure("loss_count", ("bet.settled",), "one", "bets settled as lost", result="lost"),
    _count("bonus_count", "bonus.granted", "bonuses granted"),
    _amount("bonus_amount", "bonus.granted", "bonus money granted"),
    _count("session_count", "session.started", "sessions started"),
    Measure("session_seconds", ("session.ended",), "seconds", "length of the sessions ended"),
    Measure("active_days", _OWN_TYPES, "one", "days with an act of the player", once_a_day=True),
    Measure("deposit_days", ("deposit.completed",), "one", "days with a deposit", once_a_day=True),
    Measure("bet_days", ("bet.placed",), "one", "days with a bet", once_a_day=True),
    Measure("night_bet_count", ("bet.placed",), "one", "bets placed before 06:00", night=True),
    Measure("weekend_bet_count", ("bet.placed",), "one", "bets placed at weekends", weekend=True),
    Measure(
        "night_deposit_count", ("deposit.completed",), "one", "deposits before 06:00", night=True
    ),
    *(measure for product in (*PRODUCTS, OTHER) for measure in _of_product(product)),
    *(_of_method(method) for method in (*METHODS, OTHER)),
    _count("message_sent_count", "message.sent", "messages sent"),
    _count("message_delivered_count", "message.delivered", "messages delivered"),
    _count("message_opened_count", "message.opened", "messages opened"),
    _count("message_clicked_count", "message.clicked", "clicks in messages"),
    _count("message_bounced_count", "message.bounced", "messages that bounced"),
    _count("message_complained_count", "message.complained", "complaints about messages"),
    _count("message_unsubscribed_count", "message.unsubscribed", "unsubscriptions"),
)
MEASURE_INDEX = {measure.name: index for index, measure in enumerate(MEASURES)}


@dataclass(frozen=True)
class Moment:
    """The first and the last time of any of `event_types` (empty: of every type)."""

    name: str
    event_types: tuple[str, ...]


MOMENTS: tuple[Moment, ...] = (
    Moment("bet", ("bet.placed",)),
    Moment("deposit", ("deposit.completed",)),
    Moment("withdrawal", ("withdrawal.completed",)),
    Moment("session", ("session.started",)),
    Moment("registration", ("player.registered",)),
    Moment("activity", _OWN_TYPES),
)
MOMENT_INDEX = {moment.name: index for index, moment in enumerate(MOMENTS)}


@dataclass(frozen=True)
class Derived:
    """A value made of measures in one window when it is read.

    `plus` less `minus`, divided by the sum of `by` if there is any; missing where that is 0.
    Rounded half to even, to a minor unit or a millionth.
    """

    name: str
    unit: Unit
    plus: tuple[str, ...]
    meaning: str
    minus: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    source: str = ""


def _share(name: str, part: str, whole: tuple[str, ...], meaning: str, source: str = "") -> Derived:
    return Derived(name, "share", (part,), meaning, by=whole, source=source)


_UKGC = "UKGC indicators of harm (PwC)"
DERIVED: tuple[Derived, ...] = (
    Derived("ggr_amount", "money", ("stake_amount",), "gross gaming revenue", ("payout_amount",)),
    Derived(
        "ngr_amount", "money", ("stake_amount",), "net gaming revenue",
        ("payout_amount", "bonus_amount"),
    ),
    *(
        Derived(
            f"{product}_ggr_amount", "money", (f"{product}_stake_amount",),
            f"gross gaming revenue of {product}", (f"{product}_payout_amount",),
        )
        for product in (*PRODUCTS, OTHER)
    ),
    Derived("net_deposit_amount", "money", ("deposit_amount",), "deposits less withdrawals",
            ("withdrawal_amount",)),
    Derived("mean_deposit_amount", "money", ("deposit_amount",), "mean completed deposit",
            by=("deposit_count",)),
    Derived("mean_stake_amount", "money", ("stake_amount",), "mean stake", by=("bet_count",)),
    Derived("mean_session_seconds", "seconds", ("session_seconds",), "mean session",
            by=("session_count",)),
    _share("win_share", "win_count", ("win_count", "loss_count"), "won among won and lost bets"),
    _share("weekend_bet_share", "weekend_bet_count", ("bet_count",), "bets placed at weekends"),
    _share("bonus_share", "bonus_amount", ("deposit_amount",), "bonus money against deposits"),
    _share("message_open_share", "message_opened_count", ("message_delivered_count",),
           "opened against delivered messages"),
    _share("message_click_share", "message_clicked_count", ("message_delivered_count",),
           "clicks against delivered messages"),
    # markers of harm, on buckets; behaviour before amounts
    _share("night_bet_share", "night_bet_count", ("bet_count",), "bets placed before 06:00", _UKGC),
    _share("failed_deposit_share", "failed_deposit_count",
           ("deposit_count", "failed_deposit_count"), "deposits that failed, among all", _UKGC),
    _share("cancelled_withdrawal_share", "cancelled_withdrawal_count",
           ("withdrawal_count", "cancelled_withdrawal_count"),
           "withdrawals taken back, among all", _UKGC),
    _share("deposits_per_deposit_day", "deposit_count", ("deposit_days",),
           "deposits on a day with any",
           "frequent depositing within a session: Auer and Griffiths 2023"),
)  # fmt: skip


@dataclass(frozen=True)
class Trend:
    """The last 7 days of a measure against the week before, or against the 28 days before."""

    name: str
    measure: str
    meaning: str
    since: Literal["14d", "35d"]
    source: str = ""


_BASE = "trend against the player's own 28 days: UKGC indicators of harm (PwC)"
TRENDS: tuple[Trend, ...] = (
    *(
        Trend(f"{measure}_trend_7d", measure, f"{meaning}: 7 days against the 7 before", "14d")
        for measure, meaning in (
            ("deposit_amount", "money deposited"), ("stake_amount", "money staked"),
            ("bet_count", "bets placed"), ("session_count", "sessions"),
        )
    ),
    *(
        Trend(
            f"{measure}_rise_7d", measure,
            f"{meaning}: 7 days against the weekly mean of the 28 before", "35d", _BASE,
        )
        for measure, meaning in (
            ("deposit_count", "deposits"), ("deposit_amount", "money deposited"),
            ("stake_amount", "money staked"), ("session_count", "sessions"),
            ("night_bet_count", "bets before 06:00"),
        )
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Feature:
    """One named value of a player; money is in minor units inside and a decimal string outside.

    `decimals` is what a number has (an integer inside: 127 is 1.27); None for other units.
    """

    name: str
    unit: Unit
    meaning: str
    formula: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    decimals: int | None = None


@dataclass(frozen=True)
class Distinct:
    """How many of some measures are above 0."""

    name: str
    measures: tuple[str, ...]
    meaning: str
    source: str = ""


DISTINCT: tuple[Distinct, ...] = (
    Distinct(
        "payment_method_count", tuple(f"{method}_deposit_count" for method in (*METHODS, OTHER)),
        "kinds of payment used to deposit",
        "number of payment methods: Hopfgartner et al. 2022",
    ),
    Distinct(
        "product_count", tuple(f"{product}_bet_count" for product in (*PRODUCTS, OTHER)),
        "products with a bet",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """The first or the last time of a moment, or the whole days since."""

    moment: str
    which: Literal["first", "last"]
    days_since: bool = False


@dataclass(frozen=True)
class Scored:
    """What a serving model says of a player: see score_columns.py."""

    unit: Unit
    meaning: str


Definition = Measure | Derived | Distinct | Trend | Edge | Scored


@dataclass(frozen=True)
class Defined:
    """How a feature is read: its definition, and the window that it is read over ("" without)."""

    feature: Feature
    definition: Definition
    window: str = ""


def _windows(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the windows of what is made of these measures: days do not fit into 24 hours."""
    days = any(MEASURES[MEASURE_INDEX[name]].once_a_day for name in names)
    return WINDOWS[1:] if days else WINDOWS


def over(window: str) -> str:
    """Return a window in words."""
    return _OVER.get(window, f"in the last {window.removesuffix('d')} days")


def _formula(one: Derived) -> str:
    top = " - ".join((one.plus[0], *one.minus))
    bottom = " + ".join(one.by)
    if not one.by:
        return top
    return f"{top} / ({bottom})" if len(one.by) > 1 else f"{top} / {bottom}"


def _of_measures() -> list[Defined]:
    return [
        Defined(Feature(f"{m.name}_{w}", m.unit, f"{m.meaning} {over(w)}"), m, w)
        for w in WINDOWS
        for m in MEASURES
        if w in _windows((m.name,))
    ]


_BEFORE = {"14d": "(the 7 days before)", "35d": "(the 28 days before / 4)"}


def _of_derived() -> list[Defined]:
    found = [
        Defined(
            Feature(f"{d.name}_{w}", d.unit, f"{d.meaning} {over(w)}", _formula(d), d.source), d, w
        )
        for w in WINDOWS
        for d in DERIVED
        if w in _windows((*d.plus, *d.minus, *d.by))
    ]
    found += [
        Defined(Feature(f"{d.name}_{w}", "count", f"{d.meaning} {over(w)}", source=d.source), d, w)
        for w in WINDOWS
        for d in DISTINCT
    ]
    return found + [
        Defined(
            Feature(
                t.name, "share", t.meaning,
                f"{t.measure}_7d / {_BEFORE[t.since]}",
                t.source,
            ),
            t,
        )
        for t in TRENDS
    ]  # fmt: skip


def _of_moments() -> list[Defined]:
    found = []
    for moment in MOMENTS:
        first, last = Edge(moment.name, "first"), Edge(moment.name, "last")
        for edge in (first, last):
            meaning = f"time of the {edge.which} {moment.name}"
            found.append(Defined(Feature(f"{edge.which}_{moment.name}_at", "time", meaning), edge))
        since = replace(first if moment.name == "registration" else last, days_since=True)
        name = f"days_since_{'' if since.which == 'first' else 'last_'}{moment.name}"
        meaning = f"whole days since the {since.which} {moment.name}"
        found.append(Defined(Feature(name, "days", meaning), since))
    return found


DEFINED: dict[str, Defined] = {
    one.feature.name: one for one in (*_of_measures(), *_of_derived(), *_of_moments())
}
FEATURES: dict[str, Feature] = {name: one.feature for name, one in DEFINED.items()}
