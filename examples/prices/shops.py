"""The shops: articles, what they cost, how managers price them, and what customers do.

All that the model has to find out stands in the constants; it sees sales alone.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHOPS: Final = ("north-shop", "harbour-shop", "web-shop")
GROUPS: Final = ("drinks", "snacks", "care", "toys")
ARTICLES: Final = 10  # of each group

FIRST_DAY: Final = date(2025, 9, 1)  # a Monday
DAYS: Final = 84  # twelve weeks of the rollout
HISTORY_DAYS: Final = 84  # before it, from which the model learns

ELASTICITY: Final = {"drinks": 3.2, "snacks": 2.7, "care": 3.5, "toys": 2.9}
"""By how many per cent fewer are sold when a price rises by one per cent."""
ARTICLE_SPREAD: Final = 0.12  # standard deviation of an article's own elasticity
TOURISTS: Final = ("harbour-shop", True)  # shop and whether on weekends
TOURISTS_ELASTICITY: Final = 1.3  # who is there for one day does not compare prices

HABITS: Final[Mapping[str, Mapping[str, float]]] = {
    "north-shop": {"drinks": 1.38, "snacks": 1.02, "care": 1.36, "toys": 0.78},
    "harbour-shop": {"drinks": 1.36, "snacks": 0.77, "care": 1.01, "toys": 1.40},
    "web-shop": {"drinks": 0.80, "snacks": 1.42, "care": 1.34, "toys": 1.02},
}
"""The managers' price as a multiple of the one that earns most, by shop and group."""
HARBOUR_WEEKEND_HABIT: Final = 1.06
"""On harbour weekends another manager prices all groups: a little above the weekday's best."""
MANAGER_SPREAD: Final = 0.012  # of a price, from day to day
TEST_SPREAD: Final = 0.25  # before the rollout managers tried other prices, up to this far off

PROFIT: Final = 30.0  # EUR that an article brings on a weekday at its best price
WEEKEND_SALES: Final = 1.5  # times a weekday's
DAY_SPREAD: Final = 0.08  # weather moves all sales of a shop's day together
COST_SPREAD: Final = 0.03  # what goods cost moves from week to week
PRICE_STEP: Final = 0.05


@dataclass(frozen=True, slots=True)
class ShopDays:
    """One shop over some days; arrays have a row a day and a column an article.

    Attributes:
        days: the days.
        is_weekend: by day.
        groups: by article.
        costs: what one piece costs the shop on that day, in EUR.
        markups: price over cost that earns most on weekdays, by article.
        usual_prices: such a price at the usual cost, by article.
        elasticities: of customers on that day.
        demands: mean sales at the usual price.
    """

    shop: str
    days: tuple[date, ...]
    is_weekend: npt.NDArray[np.bool_]
    groups: tuple[str, ...]
    costs: Floats
    markups: Floats
    usual_prices: Floats
    elasticities: Floats
    demands: Floats

    def compute_mean_sales(self, prices: Floats) -> Floats:
        """Return the mean number of pieces sold at some prices."""
        return np.asarray(self.demands * (prices / self.usual_prices) ** -self.elasticities)


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Open the random numbers that `purpose` alone uses; `RandomState` never changes."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def round_price(prices: Floats) -> Floats:
    """Return prices in steps of five cents."""
    return np.asarray(np.round(np.round(prices / PRICE_STEP) * PRICE_STEP, 2))


def build_shop_days(shop: str, first: date, count: int, seed: int) -> ShopDays:
    """Return a shop over `count` days; articles are the same for every first day."""
    articles = open_stream(seed, f"articles {shop}")
    groups = tuple(group for group in GROUPS for _ in range(ARTICLES))
    base_costs = articles.uniform(1.5, 4.0, len(groups))
    own = np.array([ELASTICITY[group] for group in groups])
    own = own + ARTICLE_SPREAD * articles.standard_normal(len(groups))
    days = tuple(first + timedelta(days=number) for number in range(count))
    is_weekend = np.array([day.weekday() >= 5 for day in days])
    weather = open_stream(seed, f"weather {shop} {first}")
    weeks = np.arange(count) // 7
    drift = weather.standard_normal((int(weeks[-1]) + 1, len(groups)))[weeks]
    costs = np.round(base_costs * (1 + COST_SPREAD * drift), 2)
    elasticities = np.tile(own, (count, 1))
    if shop == TOURISTS[0]:
        elasticities[is_weekend] = TOURISTS_ELASTICITY
    day_factors = 1 + DAY_SPREAD * weather.standard_normal(count)
    sales = day_factors * np.where(is_weekend, WEEKEND_SALES, 1.0)
    markups = own / (own - 1)
    prices = base_costs * markups
    demands = sales[:, None] * PROFIT / (prices - base_costs)
    return ShopDays(shop, days, is_weekend, groups, costs, markups, prices, elasticities, demands)


def build_manager_prices(shop: ShopDays, seed: int) -> Floats:
    """Return the prices that managers set by hand."""
    habits = np.array([HABITS[shop.shop][group] for group in shop.groups])
    factors = np.tile(habits, (len(shop.days), 1))
    if shop.shop == TOURISTS[0]:
        factors[shop.is_weekend] = HARBOUR_WEEKEND_HABIT
    moods = open_stream(seed, f"managers {shop.shop} {shop.days[0]}")
    spread = 1 + MANAGER_SPREAD * moods.standard_normal(factors.shape)
    return shop.costs * shop.markups * factors * spread


def sell(shop: ShopDays, prices: Floats, purpose: str, seed: int) -> Floats:
    """Return the pieces sold at some prices, by chance around their mean."""
    stream = open_stream(seed, f"sales {shop.shop} {purpose}")
    return stream.poisson(shop.compute_mean_sales(prices)).astype(np.float64)
