"""Draws docs/images/examples/patrol-holdout.svg: `python -m tests.examples.holdout_picture`.

Agreement by night at the docks, week by week: over all decisions, most of them by sergeants who saw
the answer, and over the hold-out alone with its 95 % interval.
"""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from rollout.features.demo.catalog import find_example
from rollout.features.demo.story import format_day_month
from rollout.kernel.calendar.instants import from_micros
from rollout.kernel.statistics.intervals import clopper_pearson
from tests.docs.pages import ROOT
from tests.examples.picture_frame import frame_picture
from tests.examples.plays import play_example_story

PICTURE = ROOT / "docs/images/examples/patrol-holdout.svg"
LEVEL = 0.95
LEFT, TOP, WIDTH, HEIGHT, RIGHT = 60, 46, 780, 330, 170
LOWEST = 0.3  # share at the bottom of the picture


@dataclass(frozen=True)
class AgreementWeek:
    """One week: agreeing and all decisions, and those of the hold-out."""

    start: str
    agreeing: int
    decided: int
    blind_agreeing: int
    blind: int

    @property
    def biased(self):
        """Agreement over all decisions."""
        return self.agreeing / self.decided

    @property
    def unbiased(self):
        """Agreement in the hold-out."""
        return self.blind_agreeing / self.blind

    @property
    def interval(self):
        """Interval of the agreement in the hold-out."""
        return clopper_pearson(self.blind_agreeing, self.blind, LEVEL)


def list_weeks(files, site, window):
    """Return the whole weeks of a cell in order."""
    cases = files.history.cases.filter((pl.col("site") == site) & (pl.col("window") == window))
    records, (lever,) = files.records, files.policy.levers
    answers = records.predictions.select("case_key", answer=f"value:{lever.id}")
    decisions = records.decisions.select("case_key", "exposure", label=f"value:{lever.id}")
    start = cases["occurred_us"].min()
    rows = cases.join(answers, on="case_key").join(decisions, on="case_key")
    is_agreed, is_blind = pl.col("answer") == pl.col("label"), pl.col("exposure") == "blind"
    week_us = timedelta(days=7) // timedelta(microseconds=1)
    weeks = rows.group_by(week=(pl.col("occurred_us") - start) // week_us).agg(
        agreeing=is_agreed.sum(),
        decided=pl.len(),
        blind_agreeing=(is_agreed & is_blind).sum(),
        blind=is_blind.sum(),
    )
    zone = files.policy.sites_by_id[site].timezone
    return [
        AgreementWeek(format_day_month(from_micros(start + week * week_us), zone), *counts)
        for week, *counts in weeks.sort("week").iter_rows()
    ]


def draw_holdout(weeks, threshold):
    """Return the SVG of both estimates by week."""
    biased = [(_scale_x(n, weeks), _scale_y(week.biased)) for n, week in enumerate(weeks)]
    unbiased = [(_scale_x(n, weeks), _scale_y(week.unbiased)) for n, week in enumerate(weeks)]
    label = "Agreement by night at the docks: over all decisions, and in the hold-out"
    parts = [
        f'<text x="{LEFT}" y="22" font-weight="bold">{label}</text>',
        *_draw_scale(weeks, threshold),
        *_draw_intervals(weeks),
        *_draw_series(biased, "biased", "all decisions (biased)"),
        *_draw_series(unbiased, "unbiased", "hold-out, 95 % interval"),
    ]
    return frame_picture(label, WIDTH, HEIGHT, parts)


def _draw_scale(weeks, threshold):
    right = WIDTH - RIGHT
    for percent in range(40, 101, 20):
        y = _scale_y(percent / 100)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>'
        yield (
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" class="faint">'
            f"{percent} %</text>"
        )
    y = _scale_y(threshold)
    yield (
        f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="limit"'
        ' stroke-dasharray="6 4"/>'
        f'<text x="{right + 8}" y="{y + 15:.1f}" class="warning">'
        f"threshold {threshold * 100:.0f} %</text>"
    )
    for number, week in enumerate(weeks):
        if number % 2 == 0:
            x = _scale_x(number, weeks)
            yield (
                f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle" class="faint">'
                f"{week.start}</text>"
            )


def _draw_intervals(weeks):
    for number, week in enumerate(weeks):
        x = _scale_x(number, weeks)
        low, high = (_scale_y(share) for share in week.interval)
        yield (f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" class="interval"/>')


def _draw_series(points, series, name):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" class="{series} curve"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{series}"/>'
    x, y = points[-1]
    yield f'<text x="{x + 22:.1f}" y="{y + 4:.1f}" class="{series}">{name}</text>'


def _scale_x(number, weeks):
    return LEFT + 16 + (WIDTH - LEFT - RIGHT - 32) * number / (len(weeks) - 1)


def _scale_y(share):
    bottom = HEIGHT - 40
    return bottom - (bottom - TOP) * (share - LOWEST) / (1 - LOWEST)


def draw_story(story):
    """Return the picture of the patrols' held cell."""
    held_cell = story.example.held
    weeks = list_weeks(story.replayed_files, held_cell.site, held_cell.window)
    return draw_holdout(weeks, story.find_threshold())


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(draw_story(play_example_story(find_example("patrol"))), encoding="utf-8")
