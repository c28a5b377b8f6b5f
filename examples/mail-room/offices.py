"""Four sorting offices that exist nowhere: when letters come, in what batches, on which form."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from chance import stream
from images import Digits

FIRST_DAY: Final = datetime(2025, 9, 29)  # noqa: DTZ001 - midnight at each office, in its own zone
LAST_MIDNIGHT: Final = datetime(2025, 11, 10)  # noqa: DTZ001 - the same
NEW_FORM_FROM: Final = datetime(2025, 10, 20, 6)  # noqa: DTZ001 - the same
NEW_FORM_AT: Final = "lisbon"
NEW_FORM_SHARE: Final = 0.95
WORN_AT: Final = "halifax"
WEAR_BY_NIGHT: Final = (0, 35, 65, 85, 100, 100, 100)

SUNDAY: Final = 6
DAYS: Final = (1.25, 1, 1, 1, 1.1, 0.6, 0.3)
SUNDAY_BY_DAY: Final = 0.3
# fmt: off
HOURS: Final = (2, 1.5, 1, 1, 1, 2,  3, 5, 7, 8, 8, 6,  5, 6, 7, 7, 6, 5,  6, 8, 8, 6, 4, 3)
# fmt: on

BATCHED: Final = 0.2
SAME_HAND: Final = 0.7
MORE_IN_BATCH: Final = 5
LARGEST_BATCH: Final = 30
APART: Final = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Office:
    """A sorting office: its site, the code before its keys, its zone, its episodes a weekday."""

    site: str
    code: str
    zone: ZoneInfo
    episodes: int


OFFICES: Final = (
    Office("lisbon", "lis", ZoneInfo("Europe/Lisbon"), 190),
    Office("halifax", "hal", ZoneInfo("America/Halifax"), 115),
    Office("hobart", "hob", ZoneInfo("Australia/Hobart"), 110),
    Office("nagoya", "nag", ZoneInfo("Asia/Tokyo"), 90),
)


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter: whose image it shows, when and where it came, and how it will be scanned.

    `at` is UTC, `local` the same instant on the office's clock, `wear` per cent.
    """

    key: str
    office: Office
    episode: str
    at: datetime
    local: datetime
    image: int
    new_form: bool
    wear: int


@dataclass(frozen=True, slots=True)
class _Episode:
    """One sender's letters, before they are numbered."""

    at: datetime
    images: tuple[int, ...]
    new_form: bool


def is_night(local: datetime) -> bool:
    """Say whether the night shift works: from 18:00 to 06:00."""
    return not 6 <= local.hour < 18


def wear_at(site: str, local: datetime) -> int:
    """Wear of the scanner in use, in per cent: only Halifax at night has one that wears.

    It is cleaned on Mondays; a night belongs to the day on which it began.

    >>> wear_at("halifax", datetime(2025, 10, 4, 3)), wear_at("halifax", datetime(2025, 10, 6, 19))
    (100, 0)
    """
    if site != WORN_AT or not is_night(local):
        return 0
    return WEAR_BY_NIGHT[(local - timedelta(hours=12)).weekday()]


def letters(office: Office, digits: Digits, seed: int) -> list[Letter]:
    """Let six weeks of letters arrive at one office, in order of time, keys counted from 1."""
    episodes = list(_episodes(office, digits, seed))
    arrived = sorted(
        (episode.at + place * APART, number, image)
        for number, episode in enumerate(episodes, start=1)
        for place, image in enumerate(episode.images)
    )
    end = LAST_MIDNIGHT.replace(tzinfo=office.zone)
    return [
        _letter(office, f"{office.code}-{n:06}", at, number, image, episodes[number - 1].new_form)
        for n, (at, number, image) in enumerate(arrived, start=1)
        if at < end
    ]


def _letter(
    office: Office, key: str, at: datetime, number: int, image: int, new_form: bool
) -> Letter:
    local = at.astimezone(office.zone)
    episode = f"{office.code}-e{number:05}"
    return Letter(key, office, episode, at, local, image, new_form, wear_at(office.site, local))


def _episodes(office: Office, digits: Digits, seed: int) -> Iterator[_Episode]:
    """Episodes of an office in order of time."""
    luck = stream(seed, f"arrivals {office.site}")
    hours = _hours(office)
    counts = luck.poisson([_expected(office, hour.astimezone(office.zone)) for hour in hours])
    for hour, count in zip(hours, counts.tolist(), strict=True):
        for second in np.sort(luck.randint(0, 3600, size=count, dtype=np.int64)).tolist():
            at = hour + timedelta(seconds=second)
            yield _Episode(at, _images(digits, luck), _on_new_form(office, at, luck))


def _hours(office: Office) -> list[datetime]:
    """Every hour of the span in UTC: one that the local clock shows twice comes twice."""
    first = FIRST_DAY.replace(tzinfo=office.zone).astimezone(UTC)
    last = LAST_MIDNIGHT.replace(tzinfo=office.zone).astimezone(UTC)
    return [first + timedelta(hours=n) for n in range((last - first) // timedelta(hours=1))]


def _expected(office: Office, local: datetime) -> float:
    """Episodes expected in the hour that begins at `local`."""
    quiet = SUNDAY_BY_DAY if local.weekday() == SUNDAY and not is_night(local) else 1
    return office.episodes * DAYS[local.weekday()] * quiet * HOURS[local.hour] / sum(HOURS)


def _images(digits: Digits, luck: np.random.RandomState) -> tuple[int, ...]:
    """Images of one episode: a single letter, or a batch of one digit, mostly by one hand."""
    first = int(luck.choice(digits.pool))
    if luck.random_sample() >= BATCHED:
        return (first,)
    more = min(int(luck.geometric(1 / MORE_IN_BATCH)), LARGEST_BATCH - 1)
    same_digit = digits.pool_of(int(digits.labels[first]))
    others = luck.choice(same_digit, size=more).tolist()
    same_hand = (luck.random_sample(more) < SAME_HAND).tolist()
    return (first, *(first if same else o for same, o in zip(same_hand, others, strict=True)))


def _on_new_form(office: Office, at: datetime, luck: np.random.RandomState) -> bool:
    """Say whether an episode comes on the form that Lisbon's counters hand out by day."""
    local = at.astimezone(office.zone)
    chosen = luck.random_sample() < NEW_FORM_SHARE
    counters_open = local.weekday() != SUNDAY and not is_night(local)
    introduced = local.replace(tzinfo=None) >= NEW_FORM_FROM
    return bool(chosen) and counters_open and introduced and office.site == NEW_FORM_AT
