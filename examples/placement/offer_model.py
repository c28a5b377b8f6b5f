"""The model: it counts sales by offer, window and sky, and puts first what sold best."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import erf, sqrt
from typing import Final

import numpy as np
from kiosks import OFFERS, SITES, SKIES, WINDOWS, Customer

BORROWED: Final = 20
"""So many customers weighs what both kiosks sold together, beside a kiosk's own sales."""


@dataclass(frozen=True, slots=True)
class OfferModel:
    """By site, window and sky the offer that sold best, and how sure that is."""

    choices: dict[tuple[str, str, str], tuple[str, float]]


def fit_offers(sales: Iterable[tuple[Customer, str, bool]]) -> OfferModel:
    """Fit the share of customers who bought what stood first.

    An offer that never stood first at a kiosk has the share of the other kiosk.
    """
    counts = np.zeros((2, len(SITES), len(WINDOWS), len(SKIES), len(OFFERS)))
    sites, windows, skies = list(SITES), list(WINDOWS), list(SKIES)
    for customer, offer, is_bought in sales:
        where = sites.index(customer.site), windows.index(customer.window)
        place = (*where, skies.index(customer.sky), OFFERS.index(offer))
        counts[(0, *place)] += is_bought
        counts[(1, *place)] += 1
    bought, offered = counts
    pooled = (bought.sum(axis=0) + 1) / (offered.sum(axis=0) + 5)
    weights = offered + BORROWED
    shares = (bought + BORROWED * pooled) / weights
    return OfferModel(
        {
            (site, window, sky): _choose(shares[a, b, c], weights[a, b, c])
            for a, site in enumerate(sites)
            for b, window in enumerate(windows)
            for c, sky in enumerate(skies)
        }
    )


def _choose(shares: np.ndarray, weights: np.ndarray) -> tuple[str, float]:
    """Return the best offer, and the chance by the fit that it beats the second."""
    second, best = np.argsort(shares, kind="stable")[-2:]
    variances = shares * (1 - shares) / weights
    deviation = sqrt(float(variances[best] + variances[second]))
    distance = float(shares[best] - shares[second]) / deviation
    return OFFERS[best], round(0.5 + 0.5 * erf(distance / sqrt(2)), 2)
