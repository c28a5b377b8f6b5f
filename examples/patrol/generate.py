"""Write the records of half a year of patrols: with a feedback loop, or without.

Four districts, three shifts a day. In each shift an incident happens in a district with the
district's own chance; the four are nearly alike. The model sends patrols to the two districts that
have most incidents on record so far. With the loop an incident comes on record only where a patrol
was, as with searches; without it whoever suffered reports it, wherever patrols were. Nothing else
differs: the same seed gives the same incidents, the same sergeants and the same draws.
"""

import argparse
import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rollout.core.statistics.sampling import compute_sampling_values

START = datetime(2026, 1, 5, 6, tzinfo=UTC)  # a Monday, midnight in Chicago
SHIFT = timedelta(hours=8)
SHIFTS, BY_HAND = 26 * 21, 4 * 21  # half a year; the first four weeks nobody sees the model
INCIDENTS = {"district-1": 0.34, "district-2": 0.32, "district-3": 0.30, "district-4": 0.28}
PATROLS = 2  # of four, in a shift on average
SURE = 0.95  # how often the model says what its records say
BLIND = 0.30  # of shifts in a district, drawn as the engine draws with its default salt
FOLLOWS = 0.95  # how often a sergeant who sees the model's answer takes it
SERGEANTS = ("lee", "ortiz", "shaw")


@dataclass(frozen=True)
class Shift:
    """One shift in one district, with all that became of it."""

    key: str
    district: str
    at: datetime
    said: str
    sergeant: str
    decided: str
    exposure: str
    on_record: bool


def shifts(seed: int, *, loop: bool) -> Iterator[Shift]:
    """Yield every shift of every district, in order of time.

    Args:
        seed: of all chance; the same seed gives the same incidents with and without the loop.
        loop: whether an incident comes on record only where a patrol was.
    """
    luck = random.Random(seed)  # noqa: S311 - the luck of a made-up city
    drawn = _draws(seed)
    records = dict.fromkeys(INCIDENTS, 0)
    for number in range(SHIFTS):
        most = sorted(INCIDENTS, key=lambda name: records[name], reverse=True)[:PATROLS]
        told = [
            _shift(number, district, district in most, drawn[number, district], luck, loop=loop)
            for district in INCIDENTS
        ]
        for one in told:
            records[one.district] += one.on_record
        yield from told


def _draws(seed: int) -> dict[tuple[int, str], tuple[str, float]]:
    """Return each shift's key and the draw that says who plans it, as the engine makes it."""
    keys = {
        (number, district): f"{seed}-{number:03}-{district}"
        for number in range(SHIFTS)
        for district in INCIDENTS
    }
    made = zip(
        keys.values(), compute_sampling_values(bytes(32), "stage", keys.values()), strict=True
    )
    return dict(zip(keys, made, strict=True))


def _shift(
    number: int,
    district: str,
    among_most: bool,
    drawn: tuple[str, float],
    luck: random.Random,
    *,
    loop: bool,
) -> Shift:
    key, draw = drawn
    happens, sends, roster, follows, who = (luck.random() for _ in range(5))
    by_hand = number < BY_HAND or draw < BLIND
    said = "patrol" if (sends < SURE) == among_most else "no-patrol"
    own = "patrol" if roster < PATROLS / len(INCIDENTS) else "no-patrol"
    decided = own if by_hand or follows >= FOLLOWS else said
    return Shift(
        key=key,
        district=district,
        at=START + number * SHIFT,
        said=said,
        sergeant=SERGEANTS[int(who * len(SERGEANTS))],
        decided=decided,
        exposure="blind" if by_hand else "assisted",
        on_record=happens < INCIDENTS[district] and (decided == "patrol" or not loop),
    )


def write(folder: Path, seed: int, *, loop: bool) -> None:
    """Write predictions.csv, decisions.csv and outcomes.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    told = list(shifts(seed, loop=loop))
    predictions = [
        (one.key, one.district, one.at.isoformat(), "v1", one.said, SURE) for one in told
    ]
    decisions = [
        (one.key, one.sergeant, one.decided, (one.at + SHIFT / 16).isoformat(), one.exposure)
        for one in told
    ]
    outcomes = [(one.key, "patrol", (one.at + SHIFT).isoformat()) for one in told if one.on_record]
    _write(
        folder / "predictions.csv",
        "case_key,site,occurred_at,model_version,label,confidence",
        predictions,
    )
    _write(folder / "decisions.csv", "case_key,reviewer,label,decided_at,exposure", decisions)
    _write(folder / "outcomes.csv", "case_key,label,outcome_at", outcomes)


def _write(file: Path, head: str, rows: Sequence[tuple[object, ...]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows([head.split(","), *rows])


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--no-loop", action="store_true", help="incidents are reported anyway")
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    write(given.out, given.seed, loop=not given.no_loop)
