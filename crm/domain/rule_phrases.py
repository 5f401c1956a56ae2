"""The phrases of which a rule's meaning is made: features, comparisons and days, in English."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

from crm.domain.brands import Brand
from crm.domain.features import METHODS, OTHER, PRODUCTS, Defined, Edge, Feature, Trend, over
from crm.domain.rule_terms import Dates, Over
from crm.domain.rule_words import DATE
from crm.domain.rules import Between, Compare, Condition, Exists, In, Value

# of counts that have a verb: what a player did, and what he did not do
VERBS: dict[str, tuple[str, str]] = {
    "bet_count": ("bet", "bet"),
    "deposit_count": ("deposited", "deposit"),
    "withdrawal_count": ("withdrew", "withdraw"),
    "session_count": ("started a session", "start a session"),
    "win_count": ("won", "win"),
    "loss_count": ("lost", "lose"),
    "failed_deposit_count": ("failed to deposit", "fail to deposit"),
    "cancelled_withdrawal_count": ("cancelled a withdrawal", "cancel a withdrawal"),
    "bonus_count": ("were granted a bonus", "get a bonus"),
    "night_bet_count": ("bet at night", "bet at night"),
    "weekend_bet_count": ("bet at a weekend", "bet at a weekend"),
    "night_deposit_count": ("deposited at night", "deposit at night"),
    **{
        f"{product}_bet_count": (f"bet on {named}", f"bet on {named}")
        for product in (*PRODUCTS, OTHER)
        for named in (f"{product} products" if product == OTHER else product,)
    },
    **{
        f"{method}_deposit_count": (f"deposited by {named}", f"deposit by {named}")
        for method in (*METHODS, OTHER)
        for named in ("other methods" if method == OTHER else method.replace("_", " "),)
    },
    "message_opened_count": ("opened a message", "open a message"),
    "message_clicked_count": ("clicked in a message", "click in a message"),
    "message_complained_count": ("complained about a message", "complain about a message"),
    "message_unsubscribed_count": ("unsubscribed", "unsubscribe"),
}
# of amounts that have a verb
PAID: dict[str, str] = {
    "stake_amount": "staked",
    "deposit_amount": "deposited",
    "withdrawal_amount": "withdrew",
    "payout_amount": "were paid out",
    "bonus_amount": "were granted bonuses of",
    **{
        f"{product}_stake_amount": f"staked on {named}"
        for product in (*PRODUCTS, OTHER)
        for named in (f"{product} products" if product == OTHER else product,)
    },
}
_SHARES = {
    "win_share": "share of won bets among won and lost ones",
    "weekend_bet_share": "share of bets placed at weekends",
    "night_bet_share": "share of bets placed before 06:00",
    "bonus_share": "bonus money, as a share of deposits,",
    "message_open_share": "share of delivered messages that were opened",
    "message_click_share": "clicks, as a share of delivered messages,",
    "failed_deposit_share": "share of failed deposits among all",
    "cancelled_withdrawal_share": "share of cancelled withdrawals among all",
    "deposits_per_deposit_day": "number of deposits on a day with any",
}
_EVER = {
    "bet": "have ever bet",
    "deposit": "have ever deposited",
    "withdrawal": "have ever withdrawn",
    "session": "have ever started a session",
    "registration": "have registered",
    "activity": "have ever been active",
}
_DAY = {"=": "on", "!=": "not on", "<": "before", "<=": "on or before", ">": "after",
        ">=": "on or after"}  # fmt: skip
_AT = _DAY | {"=": "at", "!=": "not at", "<=": "at or before", ">=": "at or after"}


def during(window: str, days: Over | None) -> str:
    """Return a window in words: "in the last 30 days", "in all"; nothing where there is none."""
    match days:
        case None:
            return {"": "", "24h": "in the last 24 hours"}.get(
                window, over(window) if window else ""
            )
        case Dates(first, last):
            return f"on {first}" if first == last else f"from {first} to {last}"
        case _:
            return "today" if days.days == 1 else f"in the last {days.days} days"


def clause(rule: Condition, name: str, defined: Defined, brand: Brand) -> str:
    """Return what a condition says of players: "who ..." or "whose ..."; `name` has no window."""
    when = during(defined.window, rule.over)
    if isinstance(defined.definition, Edge):
        return _of_time(rule, defined.definition)
    if isinstance(rule, Exists):
        return _words("for whom the", noun(name, defined), when, "is known")
    if name in VERBS:
        return _of_verb(rule, name, when)
    say = values_of(defined.feature, brand)
    if name in PAID:
        return _words("who", PAID[name], compared(rule, say, "exactly "), when)
    exactly = "exactly " if defined.feature.unit == "count" else ""
    return _words("whose", noun(name, defined), when, "is", compared(rule, say, exactly))


def noun(name: str, defined: Defined) -> str:
    """Return a value in words, without its window."""
    meaning = getattr(defined.definition, "meaning", "")
    if name in _SHARES:
        return _SHARES[name]
    if isinstance(defined.definition, Trend):
        return f"trend of {meaning.replace(': ', ' (', 1)})"
    if defined.feature.unit == "count":
        return f"number of {meaning}"
    mean = name.startswith("mean_") and not meaning.startswith("mean ")
    return f"mean {meaning}" if mean else meaning


def compared(rule: Condition, say: Callable[[Value], str], exactly: str = "") -> str:
    """Return a comparison in words: "more than 5", "5 or more", "from 5 to 20"."""
    match rule:
        case Compare(_, op, value):
            said = say(value)
            return {
                "=": f"{exactly}{said}", "!=": f"other than {said}", "<": f"less than {said}",
                "<=": f"{said} or less", ">": f"more than {said}", ">=": f"{said} or more",
            }[op]  # fmt: skip
        case Between(_, low, high):
            return f"from {say(low)} to {say(high)}"
        case In(_, values):
            return either([say(value) for value in values])
        case Exists():
            return "known"


def either(some: Sequence[str]) -> str:
    """Return "a, b or c"."""
    *first, last = some
    return f"{', '.join(first)} or {last}" if first else last


def values_of(feature: Feature, brand: Brand) -> Callable[[Value], str]:
    """Return how a feature's literals are said, with their unit."""
    match feature.unit:
        case "money":
            return lambda value: money(value, brand)
        case "share":
            per_day = feature.name.startswith("deposits_per_deposit_day")
            return str if per_day else lambda value: f"{(Decimal(value) * 100).normalize():f} %"
        case "seconds":
            return lambda value: _counted(value, "second")
        case _:
            return lambda value: f"{value:,}" if isinstance(value, int) else value


def money(value: Value, brand: Brand) -> str:
    """Return an amount with its currency and all of its decimals: EUR 1,000.50."""
    amount = Decimal(value)
    return f"{brand.currency.code} {amount:,.{brand.currency.decimals}f}"


def did_not(measure: str, when: str) -> str:
    """Return what is said of players who did not do what a measure with a verb counts."""
    did, do = VERBS[measure]
    return f"who never {did}" if when == "in all" else _words("who did not", do, when)


def _of_verb(rule: Condition, name: str, when: str) -> str:
    did = VERBS[name][0]
    match rule:
        case Compare(_, "=" | "<=", 0) | Compare(_, "<", 1):
            return did_not(name, when)
        case Compare(_, ">", 0) | Compare(_, ">=", 1) | Compare(_, "!=", 0):
            return _words("who", did, "at least once", when)
        case Compare(_, "<", value):
            return _words("who", did, "fewer than", _counted(value, "time"), when)
        case Compare(_, "<=", value):
            return _words("who", did, _counted(value, "time"), "or fewer", when)
        case _:
            return _words("who", did, _times(rule), when)


def _times(rule: Condition) -> str:
    match rule:
        case Compare(_, op, value):
            said = _counted(value, "time")
            return {
                "=": f"exactly {said}", "!=": f"other than {said}", ">": f"more than {said}",
                ">=": f"{said} or more",
            }[op]  # fmt: skip
        case Between(_, low, high):
            return f"{low} to {_counted(high, 'time')}"
        case In(_, values):
            return f"{either([str(value) for value in values])} times"
        case Exists():
            return ""


def _of_time(rule: Condition, edge: Edge) -> str:
    if isinstance(rule, Exists):
        return f"who {_EVER[edge.moment]}"
    what = "registration" if edge.moment == "registration" else f"{edge.which} {edge.moment}"
    what = what.replace("activity", "act")
    if not edge.days_since:
        return _words("whose", what, "was", _when(rule))
    if isinstance(rule, In):
        days = f"{either([str(value) for value in rule.values])} days"
    elif isinstance(rule, Between):
        days = f"{rule.low} to {_counted(rule.high, 'day')}"
    else:
        days = compared(rule, lambda value: _counted(value, "day"))
    return f"whose {what} was {_ago(days)}"


def _ago(days: str) -> str:
    """Return "7 days ago or more" for "7 days or more"."""
    for end in (" or more", " or less"):
        if days.endswith(end):
            return f"{days.removesuffix(end)} ago{end}"
    return f"{days} ago"


def _when(rule: Condition) -> str:
    match rule:
        case Compare(_, op, value):
            return f"{(_DAY if _is_day(value) else _AT)[op]} {_moment(value)}"
        case Between(_, low, high):
            return f"from {_moment(low)} to {_moment(high)}"
        case In(_, values):
            on = "on" if all(map(_is_day, values)) else "at"
            return f"{on} {either([_moment(value) for value in values])}"
        case Exists():
            return "known"


def _is_day(value: Value) -> bool:
    return DATE.fullmatch(str(value)) is not None


def _moment(value: Value) -> str:
    if _is_day(value):
        return str(value)
    at = datetime.fromisoformat(str(value)).replace(tzinfo=None)
    return f"{at} UTC"


def _counted(value: Value, unit: str) -> str:
    number = f"{value:,}" if isinstance(value, int) else value
    return f"{number} {unit}{'' if value == 1 else 's'}"


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)
