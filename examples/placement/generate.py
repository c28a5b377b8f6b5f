"""Write the records of eight weeks of first places on the order screens of two kiosks.

Merchandisers have a plan; a model puts first what sold best under the same sky. A sale depends on
what stood first, so outcomes need to know who chose it: the days on which stages began are
constants here, and whose offer a customer sees is the rollout's own draw. A replay that draws
otherwise is refused, because predictions carry their arm.

Example:
    python examples/placement/generate.py --seed 5 --out out/placement-5
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from kiosks import (
    DAYS,
    FIRST_DAY,
    HISTORY_DAYS,
    OFFERS,
    PLAN,
    STUDENTS,
    Customer,
    find_chance,
    list_customers,
    open_stream,
)
from offer_model import fit_offers

from rollout.features.demo.catalog import run_generator, write_tables
from rollout.kernel.statistics.sampling import compute_sampling_values

SALT: Final = bytes(32)  # of a replay
TRIAL_SHARE, WIDE_SHARE = 0.5, 0.9
TRIAL_FROM: Final = date(2025, 5, 19)
WIDE_FROM: Final = date(2025, 6, 16)  # as the rollout held its stages
UNBOOKED: Final = 0.002  # share of sales and no-sales that the till loses
MERCHANDISERS: Final = {"station": "rita", "campus": "joao"}

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """A customer with all that became of the visit; `arm` is "" where chance does not decide."""

    customer: Customer
    proposed: str
    confidence: float
    arm: str
    is_bought: bool


def happen(seed: int) -> list[Visit]:
    """Let the eight weeks happen once, the same for the same seed."""
    before = list_customers(FIRST_DAY - timedelta(days=HISTORY_DAYS), HISTORY_DAYS, seed)
    model = fit_offers(_sell_before(before, seed))
    customers = list_customers(FIRST_DAY, DAYS, seed)
    values = compute_sampling_values(SALT, "stage", [customer.key for customer in customers])
    luck = open_stream(seed, "sales").uniform(size=len(customers))
    visits = []
    for customer, value, chance in zip(customers, values.tolist(), luck.tolist(), strict=True):
        proposed, sure = model.choices[customer.site, customer.window, customer.sky]
        arm = _find_arm(customer, value)
        offer = proposed if arm == "model" else PLAN[customer.window]
        is_bought = chance < find_chance(customer, offer)
        visits.append(Visit(customer, proposed, sure, arm, is_bought))
    return visits


def _sell_before(before: list[Customer], seed: int) -> Iterator[tuple[Customer, str, bool]]:
    """Yield customer, offer and sale: offers changed by chance, but never for students at noon."""
    stream = open_stream(seed, "before")
    for customer in before:
        drawn, chance = OFFERS[int(stream.randint(len(OFFERS)))], stream.uniform()
        is_student = (customer.site, customer.window) == STUDENTS
        offer = PLAN[customer.window] if is_student else drawn
        yield customer, offer, bool(chance < find_chance(customer, offer))


def _find_arm(customer: Customer, value: float) -> str:
    day = customer.at.date()
    if day < TRIAL_FROM:
        return ""
    is_wide = day >= WIDE_FROM and (customer.site, customer.window) != STUDENTS
    return "model" if value >= 1 - (WIDE_SHARE if is_wide else TRIAL_SHARE) else "human"


def list_case_rows(visits: list[Visit]) -> Iterator[Row]:
    """Yield rows of `cases`."""
    yield "case_key", "site", "occurred_at", "sky"
    for visit in visits:
        customer = visit.customer
        yield customer.key, customer.site, customer.at.isoformat(), customer.sky


def list_prediction_rows(visits: list[Visit]) -> Iterator[Row]:
    """Yield rows of `predictions`."""
    yield "case_key", "model_version", "label", "confidence", "predicted_at", "sampled_arm"
    for visit in visits:
        at = _write_time(visit.customer.at)
        yield visit.customer.key, "v1", visit.proposed, f"{visit.confidence:.2f}", at, visit.arm


def list_decision_rows(visits: list[Visit]) -> Iterator[Row]:
    """Yield rows of `decisions`: what the plan says for each customer."""
    yield "case_key", "reviewer", "label", "decided_at"
    for visit in visits:
        customer = visit.customer
        decided = _write_time(customer.at + timedelta(seconds=1))
        yield customer.key, MERCHANDISERS[customer.site], PLAN[customer.window], decided


def list_outcome_rows(visits: list[Visit], seed: int) -> Iterator[Row]:
    """Yield rows of `outcomes`: whether the customer bought what stood first."""
    yield "case_key", "sales", "outcome_at"
    stream = open_stream(seed, "till")
    for visit in visits:
        after, is_booked = int(stream.randint(30, 600)), stream.uniform() >= UNBOOKED
        if is_booked:
            booked = _write_time(visit.customer.at + timedelta(seconds=after))
            yield visit.customer.key, str(int(visit.is_bought)), booked


def _write_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int) -> None:
    """Write cases, predictions, decisions and outcomes."""
    visits = happen(seed)
    tables = {
        "cases": list_case_rows(visits),
        "predictions": list_prediction_rows(visits),
        "decisions": list_decision_rows(visits),
        "outcomes": list_outcome_rows(visits, seed),
    }
    write_tables(folder, tables)


if __name__ == "__main__":
    run_generator(write_records, __doc__)
