"""Simulated play and money as rows of events, in the columns of the event contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from crm.domain.brands import Brand
from pipelines.simulated_money import METHODS, Bonuses, Deposits, Withdrawals
from pipelines.simulated_play import Bets, Sessions, product_names
from pipelines.simulated_players import SECOND_US, Flags, Ints, Players

RESULTS = ("lost", "won", "void")
# what comes first at one instant; a player's registration before all else
ORDER = {
    "player.registered": 0,
    "session.started": 1,
    "deposit.requested": 2,
    "deposit.failed": 3,
    "deposit.completed": 4,
    "bonus.granted": 5,
    "bet.placed": 6,
    "bet.settled": 7,
    "withdrawal.requested": 8,
    "withdrawal.completed": 9,
    "withdrawal.cancelled": 10,
    "session.ended": 11,
}
Extras = Mapping[str, pl.Series | str]


@dataclass(frozen=True)
class Rows:
    """Makes rows for one brand; `names` are the player ids by number."""

    brand: Brand
    names: pl.Series

    def rows(
        self,
        kind: str,
        player: Ints,
        at: Ints,
        amount: Ints | None = None,
        extras: Extras | None = None,
    ) -> pl.DataFrame:
        """Return events of type `kind`; `extras` become the properties."""
        return pl.DataFrame(
            {
                "order": pl.repeat(ORDER[kind], len(player), dtype=pl.Int8, eager=True),
                "type": pl.repeat(kind, len(player), eager=True),
                "player_id": self.names.gather(player),
                "at": at,
                "amount": self._decimal(amount, len(player)),
                "properties": _json(extras, len(player)),
            }
        )

    def _decimal(self, amount: Ints | None, n: int) -> pl.Series:
        """Return minor units as decimal strings in major units, exactly."""
        if amount is None:
            return pl.repeat(None, n, dtype=pl.String, eager=True)
        minor, decimals = pl.Series("amount", amount), self.brand.currency.decimals
        if decimals == 0:
            return minor.cast(pl.String)
        unit = 10**decimals
        whole = (minor // unit).cast(pl.String)
        text: pl.Series = whole + "." + (minor % unit).cast(pl.String).str.zfill(decimals)
        return text

    def of_players(self, who: Players) -> list[pl.DataFrame]:
        """Return everybody's registration."""
        return [self.rows("player.registered", np.arange(len(who)), who.registered)]

    def of_sessions(self, sessions: Sessions) -> list[pl.DataFrame]:
        """Return starts and ends of sessions."""
        number: dict[str, pl.Series | str] = {"session_id": _numbers("s", len(sessions.player))}
        ended = {**number, "duration_s": pl.Series((sessions.end - sessions.start) // SECOND_US)}
        return [
            self.rows("session.started", sessions.player, sessions.start, extras=number),
            self.rows("session.ended", sessions.player, sessions.end, extras=ended),
        ]

    def of_bets(self, bets: Bets) -> list[pl.DataFrame]:
        """Return stakes and settlements; the two events of a bet share its bet_id."""
        product = pl.Series(product_names(self.brand)).gather(bets.product)
        extras: dict[str, pl.Series | str] = {
            "bet_id": _numbers("b", len(bets.player)),
            "product": product,
            "game": product + "-" + pl.Series(bets.game).cast(pl.String),
        }
        settled = {**extras, "result": pl.Series(RESULTS).gather(bets.outcome)}
        return [
            self.rows("bet.placed", bets.player, bets.placed, bets.stake, extras),
            self.rows("bet.settled", bets.player, bets.settled, bets.payout, settled),
        ]

    def of_deposits(self, who: Players, made: Deposits) -> list[pl.DataFrame]:
        """Return deposits, each requested and then completed; some after a failed try."""
        method = {"method": _methods(who, made.player)}
        tried, failed = made.failed, {"method": _methods(who, made.player[made.failed])}
        player, amount = made.player[tried], made.amount[tried]
        request, again = made.completed - 3 * SECOND_US, made.completed[tried] - 6 * SECOND_US
        refused: Extras = {**failed, "reason": "declined"}
        return [
            self.rows("deposit.requested", player, again, amount, failed),
            self.rows("deposit.failed", player, again + SECOND_US, amount, refused),
            self.rows("deposit.requested", made.player, request, made.amount, method),
            self.rows("deposit.completed", made.player, made.completed, made.amount, method),
        ]

    def of_withdrawals(self, who: Players, made: Withdrawals) -> list[pl.DataFrame]:
        """Return withdrawals, each requested and later completed or cancelled."""
        ask = {"method": _methods(who, made.player)}
        rows = [self.rows("withdrawal.requested", made.player, made.requested, made.amount, ask)]
        for kind, chosen in (
            ("withdrawal.completed", ~made.cancelled),
            ("withdrawal.cancelled", made.cancelled),
        ):
            rows.append(self._decided(kind, who, made, chosen))
        return rows

    def _decided(self, kind: str, who: Players, made: Withdrawals, chosen: Flags) -> pl.DataFrame:
        player = made.player[chosen]
        method = {"method": _methods(who, player)}
        return self.rows(kind, player, made.decided[chosen], made.amount[chosen], method)

    def of_bonuses(self, given: Bonuses) -> list[pl.DataFrame]:
        """Return bonuses with their kind."""
        kind = pl.Series(["reload", "welcome"]).gather(given.welcome.astype(np.int64))
        return [
            self.rows("bonus.granted", given.player, given.granted, given.amount, {"kind": kind})
        ]


def _methods(who: Players, player: Ints) -> pl.Series:
    return pl.Series(METHODS).gather(who.method[player])


def _numbers(letter: str, n: int) -> pl.Series:
    return letter + pl.int_range(1, n + 1, eager=True).cast(pl.String)


def _json(extras: Extras | None, n: int) -> pl.Series:
    """Return objects as JSON text; the values hold nothing that JSON would have to escape."""
    if not extras:
        return pl.repeat(None, n, dtype=pl.String, eager=True)
    columns = {k: v for k, v in extras.items() if isinstance(v, pl.Series)}
    pairs = ",".join(f'"{key}":{_place(value)}' for key, value in extras.items())
    template = "{{" + pairs + "}}"
    return pl.DataFrame(columns).select(pl.format(template, *columns)).to_series()


def _place(value: pl.Series | str) -> str:
    """Return where a value goes in the template: numbers as they are, texts in quotes."""
    if isinstance(value, str):
        return f'"{value}"'
    return "{}" if value.dtype.is_numeric() else '"{}"'
