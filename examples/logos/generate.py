"""Make the records of the logos: drawn boards, two trained classifiers, five taggers, ten weeks.

Writes cases, predictions, decisions and outcomes as packed CSV, drawings of the scenes as PNG, and
about.json: the share of pictures that each version gets right, before and after the labels were
cleaned. boards.py states what a lens does, tagger_models.py which labels were wrong, this file who
misses what. The same seed gives the same bytes. Needs NumPy and scikit-learn, nothing of the
product.

Example:
    python examples/logos/generate.py --seed 6 --out examples/logos/records
    python examples/logos/generate.py --seeds 10 --out examples/logos
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from boards import EMPTY, KINDS, UNLISTED, Integers, open_stream, photograph
from scenes import BOARDS, Scene, draw_pictures, find_picture_name, format_answer, list_scenes
from tagger_models import TRAINED, BoardReading, read_boards, train_versions

from rollout.features.demo.catalog import build_parser, write_pictures, write_tables
from rollout.kernel.statistics.sampling import compute_sampling_value

ZONE: Final = ZoneInfo("Europe/Amsterdam")
FIRST_DAY, DAYS = date(2026, 1, 12), 70  # a Monday, ten weeks
PICTURES: Final = {"weekday": 40, "weekend": 100}  # of a site in a day
SATURDAY: Final = 5
HOURS: Final = (10, 22)
V2_SINCE: Final = datetime(2026, 2, 10, 8, tzinfo=ZONE)
GUESTS_SINCE: Final = date(2026, 2, 21)  # at the arena at weekends: their sponsor is not listed
GUEST_SHARE: Final = 0.35

# Share of logos that a tagger overlooks, and confuses with another one. They differ, so that two
# of them give the same set in about nine pictures of ten: no model can agree more often.
TAGGERS: Final = {"anouk": 0.005, "bram": 0.01, "cleo": 0.02, "daan": 0.02, "esra": 0.04}
CONFUSES: Final = 0.008
UNLISTED_OVERLOOKED: Final = 0.06  # a logo that is not in the list is missed more often
NOT_ANSWERED, UNSURE = 0.006, 0.004
DECISION_SECONDS: Final = (600, 72_000)
SALT: Final = bytes(32)  # of a replay, where no other is given
SECOND_SHARE: Final = 0.2  # as `second_verdict` of the policy
BOOKING_DAYS: Final = 5  # then the booking list says which boards hung

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: a camera's scene at a time."""

    key: str
    scene: Scene
    at: datetime
    has_guests: bool


@dataclass(frozen=True, slots=True)
class Story:
    """All pictures in order of time, and each version's answers to their boards."""

    seed: int
    shots: list[Shot]
    scenes: dict[str, list[Scene]]
    readings: dict[str, BoardReading]
    wrong_labels: dict[str, int]

    def answer(self, version: str, number: int) -> str:
        """Return a version's set of labels for one picture."""
        kinds = self.readings[version].kinds[number * BOARDS : (number + 1) * BOARDS]
        return format_answer(tuple(kinds.tolist()))

    def confidence(self, version: str, number: int) -> int:
        """Return the hundredths of the board of which the version is least sure."""
        own = self.readings[version].hundredths[number * BOARDS : (number + 1) * BOARDS]
        return int(own.min())


def tell_story(seed: int) -> Story:
    """Let ten weeks of pictures happen, and let both versions answer all of them."""
    scenes = list_scenes(seed)
    shots = sorted(list_shots(seed, scenes), key=lambda shot: (shot.at, shot.key))
    kinds: Integers = np.array([shot.scene.boards for shot in shots], dtype=np.int64).ravel()
    pixels, _ = photograph(kinds, open_stream(seed, "pictures"))
    versions = train_versions(seed)
    readings = {name: read_boards(model, pixels) for name, model in versions.models.items()}
    return Story(seed, shots, scenes, readings, versions.wrong_labels)


def list_shots(seed: int, scenes: dict[str, list[Scene]]) -> Iterator[Shot]:
    """Yield the pictures of both sites, day by day."""
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        is_weekend = day.weekday() >= SATURDAY
        for site in ("stadium", "arena"):
            luck = open_stream(seed, f"{site} {day}")
            may_have_guests = site == "arena" and is_weekend and day >= GUESTS_SINCE
            for place in range(luck.poisson(PICTURES["weekend" if is_weekend else "weekday"])):
                has_guests = luck.random_sample() < GUEST_SHARE and may_have_guests
                group = scenes["guests" if has_guests else site]
                scene = group[int(luck.randint(len(group)))]
                at = datetime(day.year, day.month, day.day, tzinfo=ZONE)
                at += timedelta(seconds=int(luck.randint(HOURS[0] * 3600, HOURS[1] * 3600)))
                yield Shot(f"{site}-{day:%m%d}-{place:03}", scene, at, has_guests)


def list_cases(story: Story) -> Iterator[Row]:
    """Yield the rows of cases.csv.gz."""
    yield "case_key", "site", "occurred_at", "match", "media"
    for shot in story.shots:
        match = "guests" if shot.has_guests else "home"
        media = find_picture_name(shot.scene)
        yield shot.key, shot.scene.site, format_time(shot.at), match, media


def list_predictions(story: Story) -> Iterator[Row]:
    """Yield the rows of predictions.csv.gz: v2 answers since it was installed."""
    yield "case_key", "model_version", "label", "confidence"
    for number, shot in enumerate(story.shots):
        for version in story.readings:
            if version == "v1" or shot.at >= V2_SINCE:
                confidence = f"{story.confidence(version, number) / 100:.2f}"
                yield shot.key, version, story.answer(version, number), confidence


def list_decisions(story: Story) -> Iterator[Row]:
    """Yield the rows of decisions.csv.gz: one tagger's set, of some pictures two, seen blind."""
    yield "case_key", "reviewer", "label", "unsure", "exposure", "task_number", "decided_at"
    luck = open_stream(story.seed, "taggers")
    for shot in story.shots:
        order = luck.permutation(len(TAGGERS)).tolist()
        tasks = 2 if compute_sampling_value(SALT, "second", shot.key) < SECOND_SHARE else 1
        for task in range(1, tasks + 1):
            tagger = list(TAGGERS)[order[task]]
            answered, unsure = luck.random_sample(2).tolist()
            label = tag(shot.scene, tagger, luck)
            seconds = task * int(luck.randint(*DECISION_SECONDS))
            at = format_time(shot.at + timedelta(seconds=seconds))
            if answered >= NOT_ANSWERED:
                is_unsure = unsure < UNSURE
                answer = ("", "true") if is_unsure else (label, "false")
                yield shot.key, tagger, *answer, "blind", str(task), at


def tag(scene: Scene, tagger: str, luck: np.random.RandomState) -> str:
    """Return the set that a tagger gives: some logos overlooked, some confused."""
    boards = []
    for board in scene.boards:
        overlooks, confuses = luck.random_sample(2).tolist()
        instead = int(luck.randint(KINDS.index(EMPTY)))
        is_unlisted = KINDS[board] == UNLISTED
        miss = UNLISTED_OVERLOOKED if is_unlisted else TAGGERS[tagger]
        if KINDS[board] != EMPTY and overlooks >= miss:
            boards.append(instead if confuses < CONFUSES else board)
    return format_answer(tuple(boards))


def list_outcomes(story: Story) -> Iterator[Row]:
    """Yield the rows of outcomes.csv.gz: the logos that hung there, by the booking list."""
    yield "case_key", "label", "outcome_at"
    for shot in story.shots:
        yield shot.key, shot.scene.answer, format_time(shot.at + timedelta(days=BOOKING_DAYS))


def format_time(at: datetime) -> str:
    """Return a time in UTC, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(story: Story) -> dict[str, int | float]:
    """Return what cleaning changed: wrong labels, and pictures right, without guests' logos."""
    home = [number for number, shot in enumerate(story.shots) if not shot.has_guests]
    figures: dict[str, int | float] = {
        "seed": story.seed,
        "pictures": len(story.shots),
        "training_boards": TRAINED,
    }
    for version in story.readings:
        right = sum(story.answer(version, n) == story.shots[n].scene.answer for n in home)
        figures[f"{version}_wrong_labels"] = story.wrong_labels[version]
        figures[f"{version}_percent_right"] = round(100 * right / len(home), 1)
    return figures


def write_records(folder: Path, seed: int) -> None:
    """Write all tables and drawings of a seed, and about.json."""
    story = tell_story(seed)
    tables = {
        "cases": list_cases(story),
        "predictions": list_predictions(story),
        "decisions": list_decisions(story),
        "outcomes": list_outcomes(story),
    }
    write_tables(folder, tables)
    write_pictures(folder, draw_pictures(story.scenes))
    about = json.dumps(describe(story), indent=2)
    (folder / "about.json").write_text(about + "\n", encoding="utf-8")


def write_seeds(folder: Path, seeds: int) -> None:
    """Write what cleaning changed for several seeds, one a row."""
    rows = [describe(tell_story(seed)) for seed in range(seeds)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "seeds.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    parser = build_parser(__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--seed", type=int, help="whole number from 0 on: write its records")
    choice.add_argument("--seeds", type=int, help="compare the versions for so many seeds instead")
    arguments = parser.parse_args()
    if arguments.seeds:
        write_seeds(arguments.out, arguments.seeds)
    else:
        write_records(arguments.out, arguments.seed)
