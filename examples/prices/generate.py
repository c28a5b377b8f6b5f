"""Write the records of twelve weeks of prices: set by managers, or by a model, as chance has it.

Three shops, forty articles, a price for each on each day. The model is fitted to the twelve weeks
before. Sales depend on the price on the shelf, so outcomes need to know who set it: the stages that
the rollout held are constants here, and whose price an article has is the rollout's own draw. A
replay that draws otherwise is refused, because predictions carry their arm.

Example:
    python examples/prices/generate.py --seed 5 --out out/prices-5
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from demand_model import compute_confidences, fit_demand, propose_prices
from shops import (
    DAYS,
    FIRST_DAY,
    HISTORY_DAYS,
    SHOPS,
    TEST_SPREAD,
    TOURISTS,
    Floats,
    ShopDays,
    build_manager_prices,
    build_shop_days,
    open_stream,
    round_price,
    sell,
)

from rollout.features.demo.catalog import run_generator, write_tables
from rollout.kernel.statistics.sampling import compute_sampling_values

ZONE: Final = ZoneInfo("Europe/Amsterdam")
SALT: Final = bytes(32)  # of a replay
TRIAL_SHARE, WIDE_SHARE = 0.4, 0.9
STAGES: Final = {  # first day of trial and of wide, as the rollout held them
    ("north-shop", False): (date(2025, 9, 15), date(2025, 10, 27)),
    ("north-shop", True): (date(2025, 9, 20), date(2025, 11, 1)),
    ("harbour-shop", False): (date(2025, 9, 22), date(2025, 11, 3)),
    ("harbour-shop", True): (date(2025, 9, 27), None),
    ("web-shop", False): (date(2025, 9, 29), date(2025, 11, 10)),
    ("web-shop", True): (date(2025, 10, 4), date(2025, 11, 15)),
}
OPENS: Final = time(5, 30)  # when a day's prices are asked for
ANSWER_SECONDS: Final = 40  # the model's, at most
DECISION_SECONDS: Final = (300, 5400)  # the managers', after a price was asked for
BOOKED_DAYS: Final = (9, 13)  # when a day's profit is known, after returns
UNBOOKED: Final = 0.002  # share of profits that are never booked
MANAGERS: Final = {
    "north-shop": ("ines", "tom"),
    "harbour-shop": ("bo", "lotte"),
    "web-shop": ("sena", "piet"),
}

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PricedDays:
    """All that happened in one shop; arrays have a row a day and a column an article."""

    shop: ShopDays
    keys: list[list[str]]
    proposed: Floats
    confidences: list[float]
    by_hand: Floats
    arms: list[list[str]]
    profits: Floats


def happen(seed: int) -> list[PricedDays]:
    """Let the twelve weeks happen once, the same for the same seed."""
    return [_price_shop(name, seed) for name in SHOPS]


def _price_shop(name: str, seed: int) -> PricedDays:
    history = build_shop_days(name, FIRST_DAY - timedelta(days=HISTORY_DAYS), HISTORY_DAYS, seed)
    tried = _try_prices(history, seed)
    model = fit_demand(history, tried, sell(history, tried, "before", seed))
    shop = build_shop_days(name, FIRST_DAY, DAYS, seed)
    proposed = propose_prices(model, shop)
    by_hand = round_price(build_manager_prices(shop, seed))
    keys = [
        [f"{name[:3]}-{day:%m%d}-{article:02}" for article in range(len(shop.groups))]
        for day in shop.days
    ]
    arms = [_draw_arms(name, *it) for it in zip(shop.days, shop.is_weekend, keys, strict=True)]
    prices = np.where(np.array(arms) == "model", proposed, by_hand)
    profits = np.round((prices - shop.costs) * sell(shop, prices, "now", seed), 2)
    return PricedDays(shop, keys, proposed, compute_confidences(model), by_hand, arms, profits)


def _try_prices(history: ShopDays, seed: int) -> Floats:
    """Return the prices before the rollout; on tourists' days managers tried none."""
    tests = open_stream(seed, f"tests {history.shop}")
    factors = tests.uniform(1 - TEST_SPREAD, 1 + TEST_SPREAD, history.costs.shape)
    if history.shop == TOURISTS[0]:
        factors[history.is_weekend] = 1.0
    return round_price(build_manager_prices(history, seed) * factors)


def _draw_arms(name: str, day: date, is_weekend: bool, keys: list[str]) -> list[str]:
    """Return who sets each price: the model, a human, or "" where chance does not decide."""
    trial, wide = STAGES[name, bool(is_weekend)]
    if day < trial:
        return [""] * len(keys)
    share = WIDE_SHARE if wide is not None and day >= wide else TRIAL_SHARE
    values = compute_sampling_values(SALT, "stage", keys)
    return ["model" if value >= 1 - share else "human" for value in values.tolist()]


def _list_cases(priced: PricedDays) -> Iterator[tuple[int, int, str, datetime]]:
    """Yield day, article, key and time of each case."""
    for day, keys in enumerate(priced.keys):
        at = datetime.combine(priced.shop.days[day], OPENS, ZONE)
        for article, key in enumerate(keys):
            yield day, article, key, at + timedelta(seconds=article)


def list_case_rows(shops: list[PricedDays]) -> Iterator[Row]:
    """Yield rows of `cases`."""
    yield "case_key", "site", "occurred_at", "article", "group", "cost"
    for priced in shops:
        for day, article, key, at in _list_cases(priced):
            group, cost = priced.shop.groups[article], priced.shop.costs[day, article]
            name = f"{group}-{article % 10}"
            yield key, priced.shop.shop, at.isoformat(), name, group, f"{cost:.2f}"


def list_prediction_rows(shops: list[PricedDays], seed: int) -> Iterator[Row]:
    """Yield rows of `predictions`."""
    yield "case_key", "model_version", "label", "confidence", "predicted_at", "sampled_arm"
    stream = open_stream(seed, "answers")
    for priced in shops:
        for day, article, key, at in _list_cases(priced):
            answered = _write_time(at + timedelta(seconds=int(stream.randint(ANSWER_SECONDS))))
            price, sure = priced.proposed[day, article], priced.confidences[article]
            yield key, "v1", f"{price:.2f}", f"{sure:.2f}", answered, priced.arms[day][article]


def list_decision_rows(shops: list[PricedDays], seed: int) -> Iterator[Row]:
    """Yield rows of `decisions`: managers set a price for every case, and never see the model's."""
    yield "case_key", "reviewer", "label", "decided_at"
    stream = open_stream(seed, "decisions")
    for priced in shops:
        for day, article, key, at in _list_cases(priced):
            manager = MANAGERS[priced.shop.shop][int(priced.shop.is_weekend[day])]
            decided = at + timedelta(seconds=int(stream.randint(*DECISION_SECONDS)))
            yield key, manager, f"{priced.by_hand[day, article]:.2f}", _write_time(decided)


def list_outcome_rows(shops: list[PricedDays], seed: int) -> Iterator[Row]:
    """Yield rows of `outcomes`: the profit at the price on the shelf."""
    yield "case_key", "profit", "outcome_at"
    stream = open_stream(seed, "bookings")
    for priced in shops:
        for day, article, key, at in _list_cases(priced):
            after, is_booked = int(stream.randint(*BOOKED_DAYS)), stream.uniform() >= UNBOOKED
            if is_booked:
                booked = _write_time(at + timedelta(days=after, hours=8))
                yield key, f"{priced.profits[day, article]:.2f}", booked


def _write_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int) -> None:
    """Write cases, predictions, decisions and outcomes."""
    shops = happen(seed)
    tables = {
        "cases": list_case_rows(shops),
        "predictions": list_prediction_rows(shops, seed),
        "decisions": list_decision_rows(shops, seed),
        "outcomes": list_outcome_rows(shops, seed),
    }
    write_tables(folder, tables)


if __name__ == "__main__":
    run_generator(write_records, __doc__)
