"""Make the records of twelve weeks of patrols, with a feedback loop or without.

Three districts of ten beats; a shift sends patrols to two beats of a district. In each shift an
incident happens on a beat with the beat's own chance; two beats are hot. The model sends patrols
to the two beats with most incidents on record so far. Sergeants know from talking to people which
beats are hot. People who suffer call, so an incident comes on record wherever patrols are; by
night at the docks nobody is there to call, and it comes on record only if a patrol was there. In
the third week sergeants begin to see the model's answers, and at night the docks' hot beats move.
Without the loop people call there, too; nothing else differs: a seed gives the same incidents,
sergeants and sampling values. Everything is invented. The same seed gives byte-equal files.

Example:
    python examples/patrol/generate.py --seed 8 --out examples/patrol/records
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from rollout.features.demo.catalog import build_parser, write_tables
from rollout.kernel.statistics.sampling import compute_sampling_values

ZONE: Final = ZoneInfo("America/Chicago")
FIRST_DAY: Final = date(2025, 8, 4)  # a Monday; no clock changes until the end
DAYS: Final = 84
SHIFTS: Final = {8: "day", 18: "night", 21: "night", 24: "night", 27: "night"}
"""Window by the hours from midnight to the start of a shift; 27 is 3 o'clock of the next date."""
SHIFT_LENGTH: Final = timedelta(hours=3)
DISTRICTS: Final = ("market", "station", "docks")
BEATS: Final = 10
HOT_BEATS: Final = (0, 1)  # of each cell, at first
MOVED_BEATS: Final = (6, 7)  # the hot ones by night at the docks from MOVE on
MOVE: Final = datetime(2025, 8, 22, 12, tzinfo=ZONE)
LOOP: Final = ("docks", "night")  # an incident is on record only where a patrol was
INCIDENT: Final = {"hot": 0.9, "was or will be hot": 0.15, "quiet": 0.05}  # chance in a shift
RECORDS_AT_START: Final = {"hot": 5, "quiet": 2}  # incidents on record when the story begins
SHOWN_FROM: Final = datetime(2025, 8, 21, 6, tzinfo=ZONE)  # until then no sergeant sees the model
BLIND: Final = 0.25  # of cases afterwards, by the engine's own sampling value (default salt)
FOLLOWS: Final = 0.95  # how often a sergeant who sees the model's answer takes it
SLIPS: Final = 0.03  # how often a sergeant plans a beat other than its heat asks for
SERGEANTS: Final = {
    "market": ("avery", "lee", "quinn"),
    "station": ("ortiz", "reed", "shaw"),
    "docks": ("blake", "jones", "marsh"),
}
UNSURE, SURENESS = 70, 29  # confidence in per cent, without and with SURE_LEAD
SURE_LEAD: Final = 15  # records between a beat and the border of the two most: then fully sure

Row = tuple[str, ...]
Cell = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PatrolCase:
    """One beat in one shift, with all that became of it."""

    key: str
    cell: Cell
    beat: int
    at: datetime
    answer: str
    confidence: float
    sergeant: str
    decided: str
    exposure: str
    is_on_record: bool


@dataclass(frozen=True, slots=True)
class ShiftLuck:
    """Chance in one shift of a district, by beat; equal with and without the loop."""

    happens: list[float]
    slips: list[float]
    follows: list[float]
    samples: list[float]
    sergeant: str


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Return the random numbers of one purpose; NumPy never changes what `RandomState` draws."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def list_shifts() -> Iterator[tuple[datetime, str]]:
    """Yield the start and window of each shift, in order of time."""
    for day in (FIRST_DAY + timedelta(days=number) for number in range(DAYS)):
        for hour, window in SHIFTS.items():
            yield datetime.combine(day, time(), ZONE) + timedelta(hours=hour), window


def make_cases(seed: int, *, loop: bool) -> list[PatrolCase]:
    """Return every beat of every shift, in order of time.

    Args:
        seed: of all chance.
        loop: whether an incident by night at the docks is on record only where a patrol was.
    """
    lucks = _draw_luck(seed)
    records = {
        (district, window): _count_records_at_start()
        for district in DISTRICTS
        for window in set(SHIFTS.values())
    }
    cases: list[PatrolCase] = []
    for at, window in list_shifts():
        for district in DISTRICTS:
            counts = records[district, window]
            keys = [f"{seed}-{len(cases) + beat:05}" for beat in range(BEATS)]
            shift = _plan_shift((district, window), at, keys, counts, next(lucks), loop=loop)
            for case in shift:
                counts[case.beat] += case.is_on_record
            cases += shift
    return cases


def _count_records_at_start() -> list[int]:
    return [RECORDS_AT_START["hot" if beat in HOT_BEATS else "quiet"] for beat in range(BEATS)]


def _draw_luck(seed: int) -> Iterator[ShiftLuck]:
    """Yield the chance of each shift in each district, as `make_cases` asks for it."""
    shifts = len(list(list_shifts())) * len(DISTRICTS)
    happens, slips, follows = (
        open_stream(seed, purpose).random_sample((shifts, BEATS)).tolist()
        for purpose in ("incidents", "slips", "follows")
    )
    rosters = open_stream(seed, "rosters").randint(3, size=shifts).tolist()
    keys = [f"{seed}-{number:05}" for number in range(shifts * BEATS)]
    samples = compute_sampling_values(bytes(32), "stage", keys).reshape(shifts, BEATS).tolist()
    for number in range(shifts):
        staff = SERGEANTS[DISTRICTS[number % len(DISTRICTS)]]
        yield ShiftLuck(
            happens[number],
            slips[number],
            follows[number],
            samples[number],
            staff[rosters[number]],
        )


def _plan_shift(
    cell: Cell, at: datetime, keys: list[str], counts: list[int], luck: ShiftLuck, *, loop: bool
) -> list[PatrolCase]:
    """Return a shift's cases; `counts` are the incidents on record before it, by beat."""
    cases = []
    for beat, (answer, confidence) in enumerate(predict_answers(counts)):
        is_hot = beat in find_hot_beats(cell, at)
        own = "patrol" if is_hot != (luck.slips[beat] < SLIPS) else "no-patrol"
        is_blind = at < SHOWN_FROM or luck.samples[beat] < BLIND
        decided = own if is_blind or luck.follows[beat] >= FOLLOWS else answer
        happened = luck.happens[beat] < find_incident_chance(cell, at, beat)
        needs_patrol = loop and cell == LOOP
        cases.append(
            PatrolCase(
                key=keys[beat],
                cell=cell,
                beat=beat,
                at=at + timedelta(minutes=beat),
                answer=answer,
                confidence=confidence,
                sergeant=luck.sergeant,
                decided=decided,
                exposure="blind" if is_blind else "assisted",
                is_on_record=happened and (decided == "patrol" or not needs_patrol),
            )
        )
    return cases


def predict_answers(counts: list[int]) -> Iterator[tuple[str, float]]:
    """Yield the model's answer and confidence for each beat, from incidents on record."""
    ranking = sorted(range(BEATS), key=lambda beat: -counts[beat])
    chosen = ranking[: len(HOT_BEATS)]
    last_in, first_out = (counts[ranking[len(HOT_BEATS) + step]] for step in (-1, 0))
    for beat, count in enumerate(counts):
        lead = count - first_out if beat in chosen else last_in - count
        confidence = (UNSURE + SURENESS * min(lead, SURE_LEAD) // SURE_LEAD) / 100
        yield "patrol" if beat in chosen else "no-patrol", confidence


def find_hot_beats(cell: Cell, at: datetime) -> tuple[int, ...]:
    """Return the beats that are hot at an instant."""
    return MOVED_BEATS if cell == LOOP and at >= MOVE else HOT_BEATS


def find_incident_chance(cell: Cell, at: datetime, beat: int) -> float:
    """Return the chance of an incident on a beat in one shift."""
    if beat in find_hot_beats(cell, at):
        return INCIDENT["hot"]
    if cell == LOOP and beat in (*HOT_BEATS, *MOVED_BEATS):
        return INCIDENT["was or will be hot"]
    return INCIDENT["quiet"]


def list_cases(cases: Iterable[PatrolCase]) -> Iterator[Row]:
    """Yield the rows of `cases`: where, when and which beat."""
    yield "case_key", "site", "occurred_at", "beat"
    for case in cases:
        yield case.key, case.cell[0], case.at.isoformat(), f"beat-{case.beat}"


def list_predictions(cases: Iterable[PatrolCase]) -> Iterator[Row]:
    """Yield the rows of `predictions`."""
    yield "case_key", "model_version", "label", "confidence", "predicted_at"
    for case in cases:
        yield case.key, "v1", case.answer, f"{case.confidence:.2f}", format_time(case.at)


def list_decisions(cases: Iterable[PatrolCase]) -> Iterator[Row]:
    """Yield the rows of `decisions`: each beat's sergeant, and whether he saw the answer."""
    yield "case_key", "reviewer", "label", "exposure", "decided_at"
    for case in cases:
        at = format_time(case.at + timedelta(minutes=15))
        yield case.key, case.sergeant, case.decided, case.exposure, at


def list_outcomes(cases: Iterable[PatrolCase]) -> Iterator[Row]:
    """Yield the rows of `outcomes`: incidents on record, known when the shift ends."""
    yield "case_key", "label", "outcome_at"
    for case in cases:
        if case.is_on_record:
            yield case.key, "patrol", format_time(case.at + SHIFT_LENGTH)


TABLES: Final[dict[str, Callable[[list[PatrolCase]], Iterator[Row]]]] = {
    "cases": list_cases,
    "predictions": list_predictions,
    "decisions": list_decisions,
    "outcomes": list_outcomes,
}


def format_time(at: datetime) -> str:
    """Return an instant in UTC, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int, *, loop: bool = True) -> None:
    """Write all tables into the folder."""
    cases = make_cases(seed, loop=loop)
    write_tables(folder, {name: list_rows(cases) for name, list_rows in TABLES.items()})


if __name__ == "__main__":
    parser = build_parser(__doc__)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--no-loop", action="store_true", help="people call at the docks, too")
    options = parser.parse_args()
    write_records(options.out, options.seed, loop=not options.no_loop)
