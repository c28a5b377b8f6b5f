"""What rules that people commonly write would have done: for comparison, never for use.

They count verdicts as they come, each case a record, missing ones dropped, and look after each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.core.places import Cell
from rollout.core.policy import Lever
from rollout.tally.frames import VALUE, Records
from rollout.tally.rows import Bools, Ints

LINE, CLOSING_LINE = 0.95, 0.90
WINDOW, STREAK, LEAST = 50, 3, 100

Spans = list[tuple[int, int]]  # [from, to) in records: open after the record before `from`


def by_rate(agrees: Bools) -> Spans:
    """Open for good once the rate so far reaches the line with enough records."""
    counts = np.arange(1, len(agrees) + 1)
    good = (np.cumsum(agrees) >= LINE * counts) & (counts >= LEAST)
    return _from_first(good, len(agrees))


def by_windows(agrees: Bools) -> Spans:
    """Open for good after several windows in a row at the line."""
    return _from_first(_streaks(agrees), len(agrees))


def by_windows_closing(agrees: Bools) -> Spans:
    """Open after several windows in a row at the line, close after one below a lower one."""
    spans: Spans = []
    opened, streak = None, 0
    for end in range(WINDOW, len(agrees) + 1, WINDOW):
        rate = float(np.mean(agrees[end - WINDOW : end]))
        streak = streak + 1 if rate >= LINE else 0
        if opened is None and streak >= STREAK:
            opened = end
        elif opened is not None and rate < CLOSING_LINE:
            spans.append((opened, end))
            opened, streak = None, 0
    return spans if opened is None else [*spans, (opened, len(agrees))]


def _streaks(agrees: Bools) -> Bools:
    """Return the records at which the last windows, one after another, are all good."""
    good = np.zeros(len(agrees), dtype=bool)
    ends = np.arange(WINDOW, len(agrees) + 1, WINDOW)
    rates = np.array([np.mean(agrees[end - WINDOW : end]) for end in ends])
    for place in range(STREAK - 1, len(ends)):
        good[ends[place] - 1] = bool(np.all(rates[place - STREAK + 1 : place + 1] >= LINE))
    return good


def _from_first(good: Bools, length: int) -> Spans:
    first = np.flatnonzero(good)
    return [(int(first[0]) + 1, length)] if len(first) else []


@dataclass(frozen=True, slots=True)
class NaiveRule:
    """A rule, and whether it looks at the whole site instead of one window of it."""

    text: str
    spans: Callable[[Bools], Spans]
    whole_site: bool = False


RULES = (
    NaiveRule(f"the cell's rate is {LINE:.0%} after {LEAST} cases", by_rate),
    NaiveRule(f"{STREAK} windows of {WINDOW} in a row at {LINE:.0%}", by_windows),
    NaiveRule(f"the site's rate is {LINE:.0%} after {LEAST} cases", by_rate, whole_site=True),
    NaiveRule(
        f"{STREAK} windows, closed again after one below {CLOSING_LINE:.0%}", by_windows_closing
    ),
)


@dataclass(frozen=True, slots=True)
class NaivePrice:
    """What a rule would have cost in one cell.

    Attributes:
        rule: in words.
        opened_at: microseconds since 1970 of the verdict that opened the cell first, None: never.
        times: how often it opened.
        cases: cases of the cell decided by the model while it was open.
        model_wrong, people_wrong: of these, wrong actions by the outcome.
    """

    rule: str
    opened_at: int | None
    times: int
    cases: int
    model_wrong: int
    people_wrong: int


def judged(records: Records, cases: pl.DataFrame, version: str, lever: Lever) -> pl.DataFrame:
    """Return each case that version, a first person and the outcome all answered, as verdicts came.

    Columns: site, window, t, at (of the verdict), agrees, model_wrong, person_wrong: whether the
    action differs from the one that the outcome asks for.
    """
    value = VALUE + lever.id
    said = records.predictions.filter(pl.col("version") == version)
    first = records.decisions.filter(~pl.col("unsure")).sort("seat", "at", nulls_last=True)
    first = first.unique("case_key", keep="first", maintain_order=True)
    frame = (
        cases.select("case_key", "site", "window", "t")
        .join(said.select("case_key", model=value), on="case_key")
        .join(first.select("case_key", "at", person=value), on="case_key")
        .join(records.outcomes.select("case_key", truth=value), on="case_key")
    )
    actions = dict(zip(lever.labels, lever.actions, strict=True))
    acted = {
        name: pl.col(name).replace_strict(actions, default=None).fill_null("")
        for name in ("model", "person", "truth")
    }
    return frame.with_columns(
        at=pl.coalesce(pl.col("at").dt.epoch("us"), "t"),
        agrees=pl.col("model") == pl.col("person"),
        model_wrong=acted["model"] != acted["truth"],
        person_wrong=acted["person"] != acted["truth"],
    ).sort("at", "case_key")


def price(rule: NaiveRule, frame: pl.DataFrame, cell: Cell) -> NaivePrice:
    """Say what `rule` would have done in `cell`, given the frame of `judged`."""
    of_site = frame.filter(pl.col("site") == cell.site)
    of_cell = of_site.filter(pl.col("window") == cell.window)
    looked = of_site if rule.whole_site else of_cell
    at = looked["at"].to_numpy()
    spans = rule.spans(looked["agrees"].to_numpy())
    opened = [(int(at[start - 1]), _end(at, end)) for start, end in spans]
    during = of_cell.filter(_within(of_cell["t"].to_numpy(), opened))
    return NaivePrice(
        rule=rule.text,
        opened_at=opened[0][0] if opened else None,
        times=len(opened),
        cases=during.height,
        model_wrong=int(during["model_wrong"].sum()),
        people_wrong=int(during["person_wrong"].sum()),
    )


def _end(at: Ints, end: int) -> int:
    return int(at[end - 1]) if end < len(at) else np.iinfo(np.int64).max


def _within(t: Ints, spans: list[tuple[int, int]]) -> Bools:
    inside = np.zeros(len(t), dtype=bool)
    for start, end in spans:
        inside |= (t > start) & (t <= end)
    return inside
