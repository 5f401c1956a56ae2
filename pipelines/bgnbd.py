"""BG/NBD: how often customers come back, from how often and how lately they did; a reference model.

Fader, Hardie and Lee, "Counting Your Customers" the Easy Way (2005): while alive a customer buys at
a rate that is gamma(r, alpha) over customers, and after each purchase leaves for ever with a
probability that is beta(a, b) over them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, gammaln, hyp2f1

from crm.domain.clustering import Floats

_START = (1.0, 1.0, 1.0, 1.0)
_LARGEST = 8.0  # of a parameter's logarithm: beyond it nothing changes any more


@dataclass(frozen=True)
class Purchases:
    """Of each customer: repeat purchases, time of the last and of observation, since the first."""

    repeats: Floats
    last: Floats
    observed: Floats


@dataclass(frozen=True)
class BgNbd:
    """Fitted parameters and their log-likelihood; times are in the unit of the purchases."""

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float

    def as_json(self) -> dict[str, float]:
        """Return the parameters for a report."""
        return asdict(self)

    def expected(self, purchases: Purchases, horizon: float) -> Floats:
        """Return the purchases expected of each customer in the next `horizon` (10)."""
        r, alpha, a, b = self.r, self.alpha, self.a, self.b
        x, last, observed = purchases.repeats, purchases.last, purchases.observed
        reach = alpha + observed
        still = hyp2f1(r + x, b + x, a + b + x - 1, horizon / (reach + horizon))
        grown = 1 - (reach / (reach + horizon)) ** (r + x) * still
        gone = a / (b + np.maximum(x, 1) - 1) * (reach / (alpha + last)) ** (r + x)
        found: Floats = (a + b + x - 1) / (a - 1) * grown / (1 + np.where(x > 0, gone, 0.0))
        return found


def fit_bgnbd(purchases: Purchases) -> BgNbd:
    """Fit by maximum likelihood, over the logarithms of the parameters."""

    def less_likely(logs: Floats) -> float:
        return -_log_likelihood(np.exp(logs), purchases)

    found = minimize(
        less_likely, np.log(_START), method="L-BFGS-B", bounds=[(-_LARGEST, _LARGEST)] * 4
    )
    r, alpha, a, b = np.exp(found.x).tolist()
    return BgNbd(r, alpha, a, b, -float(found.fun))


def _log_likelihood(parameters: Floats, purchases: Purchases) -> float:
    """Return the log-likelihood of all customers (equation 6 of the paper)."""
    r, alpha, a, b = parameters
    x, last, observed = purchases.repeats, purchases.last, purchases.observed
    rates = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    alive = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + observed)
    # who never came back cannot have left: the model lets customers leave after a repeat purchase
    left = betaln(a + 1, b + np.maximum(x, 1) - 1) - betaln(a, b)
    left = np.where(x > 0, left - (r + x) * np.log(alpha + last), -np.inf)
    return float((rates + np.logaddexp(alive, left)).sum())
