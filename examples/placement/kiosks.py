"""Two kiosks: when customers come, under what sky, and how likely each offer is bought.

All that the model has to find out stands in the constants; it sees sales alone.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

ZONE: Final = ZoneInfo("Europe/Lisbon")
SITES: Final = ("station", "campus")
OFFERS: Final = ("soup", "salad", "sandwich", "cake", "iced-tea")
WINDOWS: Final = {"morning": 7, "noon": 11, "evening": 15}  # first hour of four
SKIES: Final = {"grey": 0.50, "rain": 0.20, "sunny": 0.12, "hot": 0.18}
"""How often the sky is so in a half hour, which is how long it stays."""

FIRST_DAY: Final = date(2025, 5, 5)
DAYS: Final = 56  # eight weeks of the rollout
HISTORY_DAYS: Final = 56  # before it, from which the model learns
CUSTOMERS: Final = 36  # of a kiosk in one window of a day
HALF_HOURS: Final = 8  # of a window

PLAN: Final = {"morning": "sandwich", "noon": "sandwich", "evening": "cake"}
"""What merchandisers put first, under every sky."""
TASTES: Final[Mapping[str, Mapping[str, tuple[int, ...]]]] = {
    "morning": {
        "grey": (8, 6, 46, 28, 10),
        "rain": (24, 4, 16, 52, 6),
        "sunny": (4, 14, 16, 18, 46),
        "hot": (2, 12, 10, 8, 60),
    },
    "noon": {
        "grey": (26, 16, 46, 10, 8),
        "rain": (48, 8, 16, 14, 4),
        "sunny": (8, 42, 16, 10, 24),
        "hot": (2, 62, 12, 6, 36),
    },
    "evening": {
        "grey": (20, 10, 18, 46, 8),
        "rain": (52, 6, 16, 18, 4),
        "sunny": (6, 44, 14, 16, 26),
        "hot": (2, 24, 10, 8, 60),
    },
}
"""Of 100 customers, those who buy an offer that stands first, in the order of `OFFERS`."""
STUDENTS: Final = ("campus", "noon")
STUDENTS_TASTES: Final = {
    "grey": (16, 8, 58, 14, 8),
    "rain": (20, 4, 60, 16, 4),
    "sunny": (6, 10, 60, 12, 18),
    "hot": (2, 6, 42, 8, 20),
}
"""Students want a sandwich under every sky; a salad is too dear for them."""


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer at an order screen."""

    key: str
    site: str
    window: str
    at: datetime
    sky: str


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Open the random numbers that `purpose` alone uses; `RandomState` never changes."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def list_customers(first: date, count: int, seed: int) -> list[Customer]:
    """Return the customers of some days, in order of time."""
    stream = open_stream(seed, f"customers {first}")
    customers = [
        customer
        for number in range(count)
        for site in SITES
        for window in WINDOWS
        for customer in _list_window(first + timedelta(days=number), site, window, stream)
    ]
    return sorted(customers, key=lambda customer: (customer.at, customer.key))


def _list_window(
    day: date, site: str, window: str, stream: np.random.RandomState
) -> list[Customer]:
    """Return a window's customers, one about every seven minutes."""
    opens = datetime.combine(day, time(WINDOWS[window]), ZONE)
    skies = stream.choice(len(SKIES), HALF_HOURS, p=list(SKIES.values()))
    step = 4 * 3600 // CUSTOMERS
    customers = []
    for number in range(CUSTOMERS):
        second = number * step + int(stream.randint(step))
        customers.append(
            Customer(
                key=f"{site[:2]}-{day:%m%d}-{window[0]}{number:02}",
                site=site,
                window=window,
                at=opens + timedelta(seconds=second),
                sky=list(SKIES)[skies[second // 1800]],
            )
        )
    return customers


def find_chance(customer: Customer, offer: str) -> float:
    """Return how likely a customer buys an offer that stands first."""
    is_student = (customer.site, customer.window) == STUDENTS
    tastes = STUDENTS_TASTES if is_student else TASTES[customer.window]
    return tastes[customer.sky][OFFERS.index(offer)] / 100
