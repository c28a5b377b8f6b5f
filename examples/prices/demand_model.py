"""The model: it learns demand from sales, simulates profit over prices, proposes the best price."""

from dataclasses import dataclass
from math import erf, sqrt
from typing import Final

import numpy as np
from shops import Floats, ShopDays, round_price

PRIOR_SPREAD: Final = 0.12  # an article's elasticity around that of its group
PRICE_GRID: Final = np.linspace(1.1, 2.6, 301)  # prices that are tried, as multiples of the cost
CONFIDENCE_BAND: Final = 0.03
"""Confidence is the chance, by the model's own fit, that the best price lies this near."""


@dataclass(frozen=True, slots=True)
class DemandModel:
    """Fitted elasticities and their standard errors, by article of one shop."""

    elasticities: Floats
    errors: Floats


def fit_demand(shop: ShopDays, prices: Floats, sold: Floats) -> DemandModel:
    """Fit log sales on log price, by article; all days of the week share one elasticity.

    Weekends have a level of their own. An article's slope is drawn towards its group's mean.
    """
    slopes, variances = np.empty(prices.shape[1]), np.empty(prices.shape[1])
    for article in range(prices.shape[1]):
        slopes[article], variances[article] = _fit_article(
            np.log(prices[:, article]), np.log(sold[:, article] + 0.5), shop.is_weekend
        )
    groups = np.array(shop.groups)
    means = np.array([slopes[groups == group].mean() for group in shop.groups])
    weights = PRIOR_SPREAD**2 / (PRIOR_SPREAD**2 + variances)
    return DemandModel(means + weights * (slopes - means), np.sqrt(weights * variances) + 1e-9)


def _fit_article(
    log_prices: Floats, log_sales: Floats, is_weekend: np.ndarray
) -> tuple[float, float]:
    """Return the elasticity and its variance, by least squares."""
    columns = np.stack([np.ones(len(log_prices)), is_weekend.astype(float), log_prices], axis=1)
    inverse = np.linalg.inv(columns.T @ columns)
    solution = inverse @ columns.T @ log_sales
    residuals = log_sales - columns @ solution
    variance = float(residuals @ residuals) / (len(log_sales) - columns.shape[1])
    return -float(solution[2]), variance * float(inverse[2, 2])


def propose_prices(model: DemandModel, shop: ShopDays) -> Floats:
    """Return the price that earns most by simulation, for each day and article."""
    markups = PRICE_GRID[:, None]
    profits = (markups - 1) * markups**-model.elasticities
    best = PRICE_GRID[profits.argmax(axis=0)]
    return round_price(shop.costs * best)


def compute_confidences(model: DemandModel) -> list[float]:
    """Return by article the chance that the best price is near the proposed one."""
    relative = model.errors / (model.elasticities * (model.elasticities - 1))
    return [round(erf(CONFIDENCE_BAND / (error * sqrt(2))), 2) for error in relative.tolist()]
