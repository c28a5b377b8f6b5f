"""The map of the week: windows as they fall, one path a pattern, words that say the same."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from api.cells.map_rows import (
    WEEK_MINUTES,
    StageSchedule,
    compute_bands,
    compute_schedules,
    compute_spans,
    describe_map,
    describe_site,
    describe_window_changes,
    has_hours_outside,
)
from api.cells.week_map import draw_small_map, draw_week_map
from api.web_kit.cell_view import build_named_withheld_marker, build_stage_markers
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.policy.policy import Freeze, Where
from tests.factories import (
    AUTONOMOUS,
    CREEK,
    DAY,
    LATENCY,
    NOON,
    SUPERVISED,
    RolloutDriver,
    alarm,
    autonomous,
    policy,
    supervised,
)

MONDAY = date(2027, 5, 31)
SVG = re.compile(r"<[a-z][^<>]*")


def drawn(rollout, **how):
    """Return the map of a rollout as it stands."""
    courses = compute_schedules(rollout.scope, rollout.policy, rollout.at)
    return draw_week_map(rollout.policy, courses, rollout.at, **how)


def paths(svg, look):
    """Return what is drawn in a look: (left, top, width) of each bar."""
    found = re.findall(rf'class="p-{look}"[^>]*d="([^"]*)"', svg)
    bars = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", " ".join(found))
    return [tuple(float(n) for n in bar) for bar in bars]


def test_windows_fall_where_the_clock_has_them():
    site = Site("creek", "America/Vancouver")
    bands = compute_bands(site, (Window("day", "08:00-20:00"), Window("night")), MONDAY)
    assert bands[:3] == ((0, 480, "night"), (480, 1200, "day"), (1200, 1920, "night"))
    assert bands[-1] == (6 * 1440 + 1200, WEEK_MINUTES, "night")


def test_a_window_that_follows_the_sun_turns_at_its_own_minute_each_day():
    hut = Site("hut", "America/Vancouver", coordinates=(50.0, -123.0))
    bands = compute_bands(hut, (Window("day", "sunrise-sunset"), Window("night")), MONDAY)
    ends = [
        end - number * 1440 for number, (_, end, _) in enumerate(b for b in bands if b[2] == "day")
    ]
    assert len(ends) == 7
    assert all(later >= earlier for earlier, later in pairwise(ends))
    assert ends[0] < ends[-1]  # the days grow longer until the solstice
    assert 20 * 60 < ends[0] < 22 * 60
    assert describe_window_changes(
        replace(policy(), sites=(hut,), windows=(Window("d", "sunrise-sunset"),)), NOON
    )


def test_window_changes_name_each_site_if_all_change_alike():
    windows = (Window("day", "06:00-18:00"), Window("night"))
    creek, lake = Site("creek", "UTC"), Site("lake", "Asia/Tokyo")
    alike = policy(sites=(creek, lake), windows=windows)
    assert describe_window_changes(alike, NOON) == "at each site today 06:00 and 18:00"
    assert describe_window_changes(alike, NOON, {"lake"}) == "at lake today 06:00 and 18:00"
    assert not has_hours_outside(alike, NOON)
    assert has_hours_outside(policy(windows=(Window("day", "08:00-12:00"),)), NOON)


@pytest.mark.parametrize(
    ("monday", "hours"), [(date(2027, 3, 8), "spring"), (date(2027, 11, 1), "autumn")]
)
def test_a_week_in_which_the_clock_changes_is_as_long_as_every_other(monday, hours):
    del hours
    site = Site("creek", "America/Vancouver")
    assert compute_spans("08:00-20:00", site, monday)[-1] == (6 * 1440 + 480, 6 * 1440 + 1200)
    assert compute_spans("24/7", site, monday) == ((0, WEEK_MINUTES),)
    assert len(compute_spans("01:30-02:00", site, monday)) == 7


def test_hours_without_a_window_are_drawn_as_shadow():
    gap = policy(windows=(Window("day", "08:00-12:00"),))
    svg = drawn(supervised(gap)).wide
    assert len(paths(svg, "1")) == 7
    assert len(paths(svg, "0")) == 2  # each site once, whole


def test_one_path_draws_all_that_looks_the_same_at_a_site():
    svg = drawn(autonomous()).wide
    assert svg.count('class="p-2"') == 1
    assert "code-ground" not in svg
    assert svg.count('class="p-0"') == 2
    assert len(paths(svg, "2")) == 7
    assert 'fill="url(#p-1)"' not in svg


def test_a_code_on_a_pattern_stands_on_ground_of_its_own():
    made = drawn(supervised())
    assert made.wide.count('class="code-ground"') == made.wide.count(">Su</text>") == 7
    assert made.narrow.count('class="code-ground"') == made.narrow.count(">Su</text>") == 1


def test_withheld_cells_are_drawn_with_bars_and_called_by_their_word():
    rollout = supervised()
    rollout.tick({CREEK: alarm(LATENCY)})
    assert "creek: suspended by day, shadow by night." in drawn(rollout).text
    rollout.stop()
    made = drawn(rollout)
    assert "creek: stopped by day, shadow by night." in made.text
    assert 'class="p-held" fill="url(#p-held)"' in made.wide


def test_a_grant_that_ends_in_this_week_is_drawn_until_then():
    short = policy(
        stages=(replace(SUPERVISED, lasts=2 * DAY), AUTONOMOUS), windows=(Window("all"),)
    )
    rollout = RolloutDriver(short)
    rollout.widen(Cell("creek", "all"))
    made = drawn(rollout)
    ((left, _, width),) = paths(made.wide, "1")
    week = 1178 - left
    assert width == pytest.approx(week * (3.5 * 1440 + 30) / WEEK_MINUTES, abs=3)
    assert made.text.startswith("creek: supervised.")


def test_the_words_of_the_map_are_those_of_its_cells():
    rollout = autonomous()
    courses = compute_schedules(rollout.scope, rollout.policy, rollout.at)
    made = drawn(rollout)
    assert f">{made.text}</desc>" in made.wide
    assert f">{made.text}</desc>" in made.narrow
    for cell in rollout.policy.cells:
        assert (
            f"{courses[cell].marker.name} by {cell.window}"
            in describe_site(rollout.policy, courses, cell.site)
            or describe_site(rollout.policy, courses, cell.site) == "shadow everywhere"
        )


def test_each_day_of_the_week_names_its_hours():
    wide = drawn(autonomous()).wide
    hours = re.findall(r'<text x="([\d.]+)" y="31" text-anchor="middle">(\d\d)</text>', wide)
    assert [hour for _, hour in hours] == 7 * ["06", "12", "18"]
    (dawn, _), (noon, _), *_ = hours
    quarter_day = (1178 - paths(wide, 0)[0][0]) / 28
    assert float(noon) - float(dawn) == pytest.approx(quarter_day, 0.01)
    (ticks,) = re.findall(r'<path class="g-axis" d="([^"]*)"', wide)
    assert re.findall(r"M([\d.]+) ", ticks) == [x for x, _ in hours]


def many(sites):
    made = policy(sites=tuple(Site(f"s{n}", "UTC") for n in range(sites)))
    marks = build_stage_markers(made)
    courses = {cell: StageSchedule(marks["shadow"]) for cell in made.cells}
    return made, courses, marks


def test_more_than_twelve_sites_are_grouped_by_equal_rows():
    made, courses, marks = many(16)
    courses[Cell("s3", "day")] = StageSchedule(marks["supervised"])
    courses[Cell("s9", "day")] = StageSchedule(marks["supervised"])
    found = draw_week_map(made, courses, NOON)
    assert (
        found.text == "14 sites: shadow everywhere. s3 and s9: supervised by day, shadow by night."
    )
    assert found.wide.count('class="t-strong" x="0"') == 2
    assert ">14 sites</text>" in found.wide
    assert len(draw_week_map(many(12)[0], many(12)[1], NOON).text.split(". ")) == 12


@pytest.mark.slow
def test_fifty_sites_by_their_own_sun_stay_small():
    sites = tuple(Site(f"s{n}", "UTC", coordinates=(50 + n / 10, 0.0)) for n in range(50))
    windows = (Window("day", "sunrise-sunset"), Window("evening", "sunset-23:00"), Window("night"))
    made = policy(sites=sites, windows=windows)
    marks = build_stage_markers(made)
    looks = [
        marks["autonomous"],
        marks["supervised"],
        build_named_withheld_marker(marks, "stopped"),
    ]
    courses = {cell: StageSchedule(looks[n % 3]) for n, cell in enumerate(made.cells)}
    found = draw_week_map(made, courses, NOON)
    assert len(found.wide) + len(found.narrow) < 110_000
    assert len(draw_small_map(made, courses, NOON, rollout_name="bears")) < 8_000


def test_the_small_map_has_the_words_as_its_label_and_no_codes():
    rollout = autonomous()
    courses = compute_schedules(rollout.scope, rollout.policy, rollout.at)
    svg = draw_small_map(rollout.policy, courses, rollout.at, rollout_name='"bears" <b>')
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    assert root.get("aria-label").startswith('"bears" <b>: creek: autonomous by day, ')
    assert "<text" not in svg
    assert len(svg) < 900


def test_names_that_look_like_markup_are_text():
    name = "</desc><script>alert(1)</script>\"'&"
    made = policy(sites=(Site(name, "UTC"),), windows=(Window("<b>"), Window("n")))
    courses = {cell: StageSchedule(build_stage_markers(made)["shadow"]) for cell in made.cells}
    found = draw_week_map(made, courses, NOON)
    for svg in (found.wide, found.narrow, draw_small_map(made, courses, NOON, rollout_name=name)):
        root = ET.fromstring(svg)  # noqa: S314 - our own text
        assert not list(root.iter("script"))
    assert describe_map(made, courses).startswith(f"{name}: shadow everywhere")


def test_a_long_name_is_cut_on_the_map_and_whole_in_its_words():
    name = "the-hut-beyond-the-second-bridge-of-the-old-road"
    made = policy(sites=(Site(name, "UTC"),))
    found = drawn(RolloutDriver(made))
    assert f">{name}</text>" not in found.narrow
    assert "…</text>" in found.narrow
    assert name in found.text


def test_freezes_and_now_are_marked():
    frozen = policy(freezes=(Freeze("Jun 03", "fair", Where(("creek",))),))
    svg = drawn(RolloutDriver(frozen)).wide
    assert svg.count('<line class="g-axis"') == 1
    assert ">freeze</text>" in svg
    assert svg.count('class="g-now"') == 1
    assert ">now 12:00</text>" in svg
    assert ">then 12:00</text>" in drawn(RolloutDriver(frozen), now_word="then").wide


def test_clocks_that_show_different_times_have_a_line_each():
    far = policy(sites=(Site("creek", "UTC"), Site("nagoya", "Asia/Tokyo")))
    svg = drawn(RolloutDriver(far)).wide
    assert svg.count('class="g-now"') == 2
    assert ">now</text>" in svg


@pytest.mark.parametrize("hour", range(24))
def test_the_line_of_now_runs_through_no_code(hour):
    for rollout in (supervised(), autonomous()):
        courses = compute_schedules(rollout.scope, rollout.policy, rollout.at)
        at = NOON.replace(hour=hour)
        made = draw_week_map(rollout.policy, courses, at)
        for svg in (made.wide, made.narrow):
            (now,) = re.findall(r'class="g-now" x1="([\d.]+)"', svg)
            codes = re.findall(r'class="t-code[^"]*" x="([\d.]+)"[^>]*>(\w+)</text>', svg)
            assert codes
            assert all(abs(float(now) - float(x)) >= 4 * len(code) for x, code in codes)


def test_hours_outside_every_window_are_named():
    gap = policy(windows=(Window("day", "08:00-12:00"), Window("night", "20:00-08:00")))
    made = drawn(supervised(gap))
    assert len(paths(made.wide, "outside")) == 2 * 7
    assert made.narrow.count(">outside</text>") == 2
    names = re.findall(r'x="([\d.]+)"[^>]*>outside</text>', made.narrow)
    (now,) = re.findall(r'class="g-now" x1="([\d.]+)"', made.narrow)
    assert all(abs(float(now) - float(x)) > 28 for x in names)
    assert "outside" not in drawn(supervised()).wide


def test_the_narrow_map_is_of_today_alone():
    rollout = autonomous()
    made = drawn(rollout)
    assert len(paths(made.narrow, "2")) == 1
    ((left, _, width),) = paths(made.narrow, "2")
    hour = (326 - (left - 0.5)) / 16  # from 08:00 to 24:00
    assert width == pytest.approx(12 * hour - 1, abs=0.2)


def test_windows_that_cases_choose_have_a_row_each():
    wet = Window("wet", "08:00-20:00", {"weather": ("wet",)})
    made = policy(windows=(wet, Window("dry")), sites=(Site("creek", "UTC"),))
    courses = {cell: StageSchedule(build_stage_markers(made)["shadow"]) for cell in made.cells}
    svg = draw_week_map(made, courses, NOON).wide
    assert ">creek · wet</text>" in svg
    assert ">creek · dry</text>" in svg


def test_a_reader_of_one_site_is_drawn_that_one():
    rollout = autonomous()
    courses = compute_schedules(rollout.scope, rollout.policy, rollout.at)
    made = draw_week_map(rollout.policy, courses, rollout.at, ("lake",))
    assert "creek" not in made.wide + made.text
    assert made.text == "lake: shadow everywhere."


def test_everything_that_is_drawn_carries_a_class_and_no_colour():
    made = drawn(autonomous())
    for tag in SVG.findall(made.wide + made.narrow):
        assert "style=" not in tag
        assert "stroke=" not in tag
        assert not re.search(r'fill="(?!url\(#p-|none)', tag)


def test_the_week_is_that_of_the_policys_own_clock():
    late = datetime(2027, 6, 6, 23, 30, tzinfo=UTC) + timedelta(minutes=10)
    made = policy(timezone="Asia/Tokyo", sites=(Site("creek", "Asia/Tokyo"),))
    courses = {cell: StageSchedule(build_stage_markers(made)["shadow"]) for cell in made.cells}
    assert draw_week_map(made, courses, late).monday == date(2027, 6, 7)
