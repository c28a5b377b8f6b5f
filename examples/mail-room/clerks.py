"""Clerks who exist nowhere: who reads which letter, when, and how often they slip."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from chance import stream
from offices import Letter, Office, is_night

from rollout.kernel.statistics.sampling import compute_sampling_value

BY_DAY: Final = (1, 2, 3, 4)
BY_NIGHT: Final = (2, 5, 6)
CLERKS: Final = 6
ERRORS_IN_1000: Final = (3, 5, 8, 12, 20)
ERROR_WEIGHTS: Final = (0.25, 0.25, 0.25, 0.15, 0.1)
CARELESS: Final = {"hob-2": 50}
# Digits that a tired eye takes for the one before the colon.
LOOK_ALIKES: Final = {
    0: (6, 8),
    1: (7, 4),
    2: (7, 3),
    3: (8, 5),
    4: (9, 1),
    5: (3, 6),
    6: (0, 5),
    7: (1, 9),
    8: (3, 9),
    9: (4, 8),
}

NEVER_ANSWERED: Final = 0.007
UNSURE: Final = 0.008
SALT: Final = bytes(32)  # of a replay, where no other is given
SECOND_SHARE: Final = 0.06
MEDIAN_SECONDS: Final = 222
SPREAD: Final = 0.8
SOONEST_SECONDS: Final = 5
LONG_WAIT: Final = 0.03
LONG_WAIT_SECONDS: Final = (2 * 3600, 10 * 3600)


@dataclass(frozen=True, slots=True)
class Decision:
    """One clerk's verdict on one letter, never having seen what a model reads; None is unsure.

    Seat 2 is the second clerk, who gets some letters after the first one.
    """

    letter: Letter
    reviewer: str
    digit: int | None
    seat: int
    at: datetime


@dataclass(frozen=True, slots=True)
class _Desk:
    """What a clerk's verdict on a letter depends on beside the letter: skill and luck."""

    errors_in_1000: dict[str, int]
    luck: np.random.RandomState


def staff(office: Office, seed: int) -> dict[str, int]:
    """Hire an office's clerks: how many letters in 1,000 each reads wrong on a clean scan."""
    luck = stream(seed, f"staff {office.site}")
    drawn = luck.choice(ERRORS_IN_1000, size=CLERKS, p=ERROR_WEIGHTS).tolist()
    names = [f"{office.code}-{n}" for n in range(1, CLERKS + 1)]
    return {name: CARELESS.get(name, errors) for name, errors in zip(names, drawn, strict=True)}


def decisions(
    office: Office, letters: list[Letter], digits: list[int], seed: int
) -> Iterator[Decision]:
    """Let an office's clerks read its letters, whose true digits are `digits`.

    A letter that nobody answers has no decision. Whether a second clerk reads it too is drawn
    from its key alone.
    """
    desk = _Desk(staff(office, seed), stream(seed, f"clerks {office.site}"))
    for letter, digit in zip(letters, digits, strict=True):
        shift = [f"{office.code}-{n}" for n in _shift(letter)]
        first, second = desk.luck.permutation(len(shift))[:2].tolist()
        answer = _decide(letter, digit, shift[first], 1, letter.at, desk)
        if answer is not None:
            yield answer
        if compute_sampling_value(SALT, "second", letter.key) < SECOND_SHARE:
            begun = letter.at if answer is None else answer.at
            answer = _decide(letter, digit, shift[second], 2, begun, desk)
            if answer is not None:
                yield answer


def _shift(letter: Letter) -> tuple[int, ...]:
    return BY_NIGHT if is_night(letter.local) else BY_DAY


def _decide(
    letter: Letter, digit: int, reviewer: str, seat: int, begun: datetime, desk: _Desk
) -> Decision | None:
    """Let one clerk answer, or not. A worn scan makes for more slips and more doubt."""
    never, unsure, wrong, which = desk.luck.random_sample(4).tolist()
    at = begun + _wait(desk.luck)
    if never < NEVER_ANSWERED:
        return None
    if unsure < UNSURE * (1 + 1.5 * letter.wear / 100):
        return Decision(letter, reviewer, None, seat, at)
    slips = desk.errors_in_1000[reviewer] / 1000 * (1 + 0.7 * letter.wear / 100)
    read = LOOK_ALIKES[digit][int(2 * which)] if wrong < slips else digit
    return Decision(letter, reviewer, read, seat, at)


def _wait(luck: np.random.RandomState) -> timedelta:
    """Time until a verdict, in whole seconds: minutes, now and then hours."""
    usual = MEDIAN_SECONDS * float(np.exp(SPREAD * luck.standard_normal()))
    put_aside = luck.random_sample() < LONG_WAIT
    longer = int(luck.randint(*LONG_WAIT_SECONDS, dtype=np.int64)) if put_aside else 0
    return timedelta(seconds=max(SOONEST_SECONDS, round(usual)) + longer)
