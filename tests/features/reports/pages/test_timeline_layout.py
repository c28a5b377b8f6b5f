"""The places of a timeline's marks and texts: nothing hidden, nothing over another, in order."""

import re
from dataclasses import replace
from datetime import timedelta
from itertools import combinations, pairwise
from random import Random

import pytest

from rollout.features.reports.inputs.cell_facts import (
    CellTimeline,
    TimelineBucket,
    TimelineGap,
    TimelineMark,
    TimelinePoint,
    TimelineStage,
    TimelineThreshold,
    TimelineVersion,
)
from rollout.features.reports.pages.timeline_chart import (
    draw_small_timeline,
    draw_timeline,
    list_key_items,
)
from rollout.features.reports.pages.timeline_layout import (
    BARS_BOTTOM,
    BARS_TOP,
    HEIGHT,
    MAX_MARK_SHIFT,
    MIN_COLUMN_WIDTH,
    build_frames,
    list_columns,
    list_labels,
    place_marks,
)
from tests.factories import DAY, NOON

DAYS = 42
SEEDS = range(12)


def timeline_of(seed, marks=None):
    """Return a timeline with clustered events, close thresholds and versions of any names."""
    chance = Random(seed)  # noqa: S311 - a seeded example
    since = NOON - DAYS * DAY
    is_cost = seed % 4 == 3
    level = chance.choice([0.01, 3.5, 1200.5] if is_cost else [0.5, 0.9, 0.99])
    count = chance.choice([0, 3, 9, 23, 150]) if marks is None else marks
    hours = [chance.choice([chance.random() * 24 * DAYS, 24 * DAYS - 1]) for _ in range(count)]
    events = [since + timedelta(hours=hour) for hour in sorted(hours)]
    names = ["v1", "resnet50-2027-06-01", "v10", "guard"][: 1 + seed % 4]
    versions = tuple(
        TimelineVersion(name, number == 1, tuple(
            TimelinePoint(day, 5, level, level * (1 - chance.random() / 50) if day > 3 else None)
            for day in range(chance.randrange(DAYS))
        ))
        for number, name in enumerate(names)
    )  # fmt: skip
    return CellTimeline(
        site="creek", window="day", timezone="America/Vancouver", since=since, until=NOON,
        counted_until=NOON, bucket=["hour", "day", "week", "52 weeks"][seed % 4],
        measure="cost" if is_cost else "agreement", at_least=not is_cost, batch=None,
        buckets=tuple(TimelineBucket(since + day * DAY, chance.randrange(2_000), 10, day)
                      for day in range(DAYS)),
        stages=(TimelineStage("supervised", "v1", "confirmed", since, NOON),),
        versions=versions,
        thresholds=(TimelineThreshold("gate", "gate", level),
                    TimelineThreshold("gate", "gate", level * 0.999),
                    TimelineThreshold("guard", "guard", level * 0.998)),
        marks=tuple(TimelineMark(at, 1, "Widened", "v1 widened", "wider") for at in events),
        gaps=(TimelineGap("purged", since, since + 9 * DAY),) if seed % 3 else (),
    )  # fmt: skip


def overlap(one, other):
    (left, top, right, bottom), (left_2, top_2, right_2, bottom_2) = one, other
    return left < right_2 and left_2 < right and top < bottom_2 and top_2 < bottom


@pytest.mark.parametrize("seed", SEEDS)
def test_no_text_lies_over_another_nor_outside(seed):
    timeline = timeline_of(seed)
    for frame in build_frames(timeline):
        labels = list_labels(timeline, frame)
        pairs = [
            (one, other) for one, other in combinations(labels, 2) if overlap(one.box, other.box)
        ]
        assert pairs == []  # fmt: skip
        assert all(box[0] >= 0 and box[3] <= HEIGHT for box in (label.box for label in labels))
        names = [label for label in labels if "tl-name" in label.css]
        drawn = sum(1 for version in timeline.versions if version.points)
        assert len(names) == (drawn if frame.is_wide else 0)
        assert all(label.box[2] <= frame.width + 4 for label in labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_key_names_what_the_narrow_drawing_has_no_room_for(seed):
    timeline = timeline_of(seed)
    texts = [item.text for item in list_key_items(timeline)]
    for version in timeline.versions:
        named = [text for text in texts if text.startswith(f"{version.version}: one ")]
        assert len(named) == bool(version.points)
    assert sum(text.startswith(("Gate ", "Guard ")) for text in texts) == len(timeline.thresholds)
    assert ("Widening, renewal or resume" in texts) == bool(timeline.marks)
    assert {"Humans alone", "Humans with the model's answer", "Model alone"} <= set(texts)


@pytest.mark.parametrize("highest", [0, 1, 7, 92, 101, 154, 1_409, 250_001, 1_500_000])
def test_the_ticks_of_bars_are_round_and_above_every_bar(highest):
    timeline = timeline_of(1)
    bucket = TimelineBucket(timeline.since, highest, 0, 0)
    for frame in build_frames(replace(timeline, buckets=(bucket,))):
        *_, highest_tick = frame.bar_ticks
        assert 2 <= len(frame.bar_ticks) <= 4
        assert frame.bar_ticks[0] == 0
        assert highest <= highest_tick <= max(1, 2 * highest)
        assert all(str(tick).rstrip("0") in {"", "1", "2", "3", "4", "5", "6", "15"}
                   for tick in frame.bar_ticks)  # fmt: skip
        assert frame.bar(highest) <= BARS_BOTTOM - BARS_TOP
        labels = list_labels(replace(timeline, buckets=(bucket,)), frame)
        assert all(label.box[0] >= 0 for label in labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mark_is_hidden_and_numbers_stay_in_order(seed):
    timeline = timeline_of(seed)
    for frame in build_frames(timeline):
        boxes = place_marks(timeline, frame)
        numbers = [number for box in boxes for number in range(box.first, box.last + 1)]
        assert numbers == list(range(len(timeline.marks)))
        for left, right in pairwise(boxes):
            assert left.x + left.width / 2 < right.x - right.width / 2
        assert all(
            box.x - box.width / 2 >= 0 and box.x + box.width / 2 <= frame.width for box in boxes
        )
        assert all(abs(box.x - box.at_x) <= MAX_MARK_SHIFT for box in boxes) or len(boxes) == 1
        assert all(len(re.findall(r"\d+", box.text)) == 1 + (box.last > box.first) for box in boxes)


def test_events_of_one_instant_stand_side_by_side_and_only_many_are_drawn_as_one():
    timeline = timeline_of(1, marks=0)
    mark = TimelineMark(NOON - 20 * DAY, 1, "Widened", "v1 widened", "wider")
    wide, _ = build_frames(timeline)
    assert len(place_marks(replace(timeline, marks=(mark,) * 5), wide)) == 5
    few = place_marks(replace(timeline, marks=(mark,) * 40), wide)
    assert len(few) < 6
    assert few[-1].last == 39


@pytest.mark.parametrize("marks", [1, 3, 12, 40])
def test_the_marks_of_a_small_timeline_lie_side_by_side(marks):
    timeline = timeline_of(1, marks=marks)
    drawing = draw_small_timeline(timeline, "lisbon")
    drawn = re.findall(
        r'tl-mark tl-wider"><rect x="([-\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing
    )
    boxes = [(float(x), float(width)) for x, width in drawn]
    assert len(boxes) == marks
    assert all(x >= 0 and x + width <= 240 for x, width in boxes)
    assert all(x + width < right for (x, width), (right, _) in pairwise(boxes))


def test_each_value_is_reached_by_keys_and_adds_up():
    timeline = timeline_of(1)
    for frame, drawing in zip(
        build_frames(timeline), draw_timeline(timeline, "t", "a", "b"), strict=True
    ):
        columns = list(list_columns(timeline, frame, MIN_COLUMN_WIDTH))
        assert all(column.right - column.left >= MIN_COLUMN_WIDTH for column in columns[:-1])
        humans = sum(int(re.search(r"humans ([\d,]+)", column.lines[1])[1].replace(",", ""))
                     for column in columns)  # fmt: skip
        assert humans == sum(bucket.human for bucket in timeline.buckets)
        tips = re.findall(
            r'class="tl-hit" tabindex="0" role="img" aria-labelledby="([^"]+)"', drawing
        )
        assert len(tips) == len(set(tips)) == len(columns)
        assert all(f'class="tl-tip" id="{tip}"' in drawing for tip in tips)
