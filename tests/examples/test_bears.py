"""Bears at campsites: agreement opens nothing by itself, and night stays with the rangers.

All seeds from 0 to 9 were tried. In each of them the creek by day reaches `supervised` between
25 July and 19 August, no cell is widened at night or at the remote camp, and the fogged glass
narrows the creek by day within 9 days; in nine of ten a cell by day or dusk becomes autonomous.
Seed 9 was chosen: its dates are middling ones. The tests allow what the ten seeds show.
"""

import csv
import gzip
import re
import runpy
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rollout.engine.events import IncidentOpened, Narrowed, ProposalRaised, Suspended, Widened
from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import replay_files
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.statistics.evidence import compute_log_e
from rollout.kernel.statistics.forecast import forecast_gate
from tests.docs.pages import ROOT, text_of

pytestmark = pytest.mark.simulation

BEARS = ROOT / "examples/bears"
RECORDS = BEARS / "records"
HELD = Cell("meadow", "night")
CREEK, MEADOW = Cell("creek", "day"), Cell("meadow", "day")
FOG = datetime(2025, 9, 10, 21, tzinfo=UTC)
LINK = datetime(2025, 9, 6, 15, tzinfo=UTC), datetime(2025, 9, 7, 22, tzinfo=UTC)
TENTS = datetime(2025, 8, 16, 18, tzinfo=UTC), datetime(2025, 9, 4, 18, tzinfo=UTC)
PAGE = text_of("examples/bears/README.md")
FIRST_ATTEMPT = 1 / 2.612  # of a year's risk


def read(name):
    text = gzip.decompress((RECORDS / f"{name}.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(text.splitlines()))


@pytest.fixture(scope="module")
def replay():
    return replay_files(build_replay_request(find_example("bears")))


@pytest.fixture(scope="module")
def events(replay):
    return replay.result.events


@pytest.fixture(scope="module")
def season():
    """Return the generator's own cases, which know the pose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BEARS))
        return runpy.run_path(str(BEARS / "generate.py"))["build_season"](9)


@pytest.fixture(scope="module")
def natural():
    """Return the natural pictures in order: place, time, answers, what was there."""
    planted = {row["case_key"] for row in read("planted")}
    tables = [
        {row["case_key"]: row for row in read(name)}
        for name in ("cases", "predictions", "decisions", "outcomes")
    ]
    return [
        {
            "cell": Cell(row["site"], row["media"].split("/")[1].split("-")[0]),
            "episode": row["episode"],
            "at": datetime.fromisoformat(row["occurred_at"]),
            "said": tables[1][key]["label"],
            "sure": float(tables[1][key]["confidence"]) >= 0.9,
            "late": int(tables[1][key]["latency_ms"]) > 120_000,
            "decided": tables[2].get(key, {}).get("label"),
            "true": tables[3][key]["label"],
        }
        for key, row in tables[0].items()
        if key not in planted
    ]


def list_stages(events, kind, cell):
    return [(e.to_stage, e.at) for e in events if isinstance(e, kind) and e.cell == cell]


def get_log_e(replay, cell, gate=0):
    """Return the log e-value of each condition of a gate at the end, and what it must reach."""
    view = replay.result.views[cell, "v1"]
    risk = view.policy.gates[gate].risk * FIRST_ATTEMPT
    found = {}
    for condition in view.policy.list_conditions(1, cell):
        counts = view.attempt_window.get_counts(condition)[-1].tolist()
        found[str(condition)] = compute_log_e(*counts, at_least=condition.threshold)
    return found, np.log(1 / risk)


def test_no_night_and_no_cell_of_the_remote_camp_is_ever_proposed(events):
    raised = {(e.cell.site, e.cell.window) for e in events if isinstance(e, ProposalRaised)}
    assert not {cell for cell in raised if cell[1] == "night" or cell[0] == "far-camp"}


def test_the_held_cell_meets_agreement_and_planted_recall_but_not_the_natural_one(replay):
    found, needed = get_log_e(replay, HELD)
    assert len(found) == 3
    assert found.pop("recall of bear at least 80 %") < 1
    assert min(found.values()) > needed  # agreement, and recall of planted cases


def test_the_page_tells_how_rare_bears_are_and_what_the_model_misses_at_night(natural):
    visits = {(p["episode"], p["true"]) for p in natural}
    assert 13.5 < len(visits) / sum(label == "bear" for _, label in visits) < 14.5
    night = [picture for picture in natural if picture["cell"] == HELD]
    assert round(100 * np.mean([p["said"] == p["decided"] for p in night])) == 97
    bears = [p["said"] == "bear" for p in night if p["true"] == "bear"]
    assert 0.60 < np.mean(bears) < 0.70


def test_day_comes_first_and_dusk_stays_supervised(events):
    (supervised, first), (autonomous, second) = list_stages(events, Widened, CREEK)
    assert (supervised, autonomous) == ("supervised", "autonomous")
    assert datetime(2025, 7, 24, tzinfo=UTC) < first < datetime(2025, 8, 20, tzinfo=UTC)
    assert timedelta(days=14) < second - first < timedelta(days=42)
    meadow = list_stages(events, Widened, MEADOW)
    assert [stage for stage, _ in meadow] == ["supervised", "autonomous"]
    assert meadow[0][1] - first > timedelta(days=7)  # the wave
    for site in ("creek", "meadow"):
        stages = list_stages(events, Widened, Cell(site, "dusk"))
        assert [stage for stage, _ in stages] == ["supervised"]
        assert stages[0][1] > first


def test_false_alarms_are_reported_while_the_tents_stand_and_narrow_nothing(events):
    reported = [e for e in events if isinstance(e, IncidentOpened) and "action_change" in e.guard]
    assert any(e.cell == MEADOW and TENTS[0] < e.at < TENTS[1] for e in reported)
    assert not list_stages(events, Narrowed, MEADOW)


def test_slow_answers_suspend_the_meadow_within_hours_and_only_for_a_time(events):
    suspended = [e for e in events if isinstance(e, Suspended)]
    assert {e.cell for e in suspended} == {MEADOW, Cell("meadow", "dusk")}
    assert all(timedelta(0) < e.at - LINK[0] < timedelta(hours=8) for e in suspended)
    assert not list_stages(events, Narrowed, MEADOW)


def test_the_fogged_glass_narrows_the_creek_within_days(events):
    narrowed = list_stages(events, Narrowed, CREEK)
    assert [stage for stage, _ in narrowed] == ["supervised", "shadow"]
    assert timedelta(0) < narrowed[0][1] - FOG < timedelta(days=9)
    ((stage, at),) = list_stages(events, Narrowed, Cell("creek", "dusk"))
    assert (stage, at > FOG) == ("shadow", True)


def count_misses(pictures, start):
    return sum(p["true"] == "bear" != p["said"] for p in pictures if p["at"] > start)


def find_plain_openings(pictures):
    """Return when each plain rule would first have opened a cell, by rule."""
    agrees = [p["said"] == p["decided"] for p in pictures]
    openings = {}
    for number in range(100, len(pictures) + 1):
        if sum(agrees[:number]) >= 0.95 * number:
            openings["rate so far"] = pictures[number - 1]["at"]
            break
    windows = [sum(agrees[i : i + 50]) >= 47.5 for i in range(0, len(agrees) - 49, 50)]
    for number in range(len(windows) - 2):
        if all(windows[number : number + 3]):
            openings["three windows"] = pictures[number * 50 + 149]["at"]
            break
    return openings


def test_plain_rules_open_the_held_cell_and_miss_bears_of_which_nobody_is_warned(natural):
    night = [picture for picture in natural if picture["cell"] == HELD]
    openings = find_plain_openings(night)
    assert set(openings) == {"rate so far", "three windows"}
    for opened in openings.values():
        assert opened < night[0]["at"] + timedelta(days=40)
        assert count_misses(night, opened) >= 15
    sure = [picture for picture in night if picture["sure"]]
    assert sum(p["said"] == p["decided"] for p in sure) / len(sure) >= 0.95
    assert count_misses(sure, night[0]["at"]) >= 15


def test_an_answer_after_two_minutes_counts_as_missed(replay, natural):
    late = [p for p in natural if p["late"]]
    assert late
    assert {p["cell"].site for p in late} == {"meadow"}
    assert replay.policy.levers[0].answer_within == timedelta(minutes=2)


def test_rare_bears_are_the_dead_end_that_the_page_tells(natural):
    """The table: bears needed if none is missed, and days until so many have come."""
    rows = re.findall(r"^\| (\d+) % \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == ["80", "90", "95", "99"]
    days = (natural[-1]["at"] - natural[0]["at"]) / timedelta(days=1)
    bears = {(p["cell"], p["episode"]) for p in natural if p["true"] == "bear"}
    by_cell = Counter(cell for cell, _ in bears)
    for at_least, needed, creek, remote in rows:
        alpha = 0.05 * FIRST_ATTEMPT
        forecast = forecast_gate(0, 0, at_least=int(at_least) / 100, alpha=alpha)
        assert forecast.if_all_agree == int(needed)
        for cell, told in ((CREEK, creek), (Cell("far-camp", "day"), remote)):
            assert int(told.replace(",", "")) == round(int(needed) * days / by_cell[cell])


def test_cubs_and_bears_from_behind_are_missed_most_at_night(season):
    found = Counter()
    for case in season:
        visit = case.visit
        if (visit.camp.site, visit.window) == (HELD.site, HELD.window) and not case.planted:
            is_new = visit.pose in ("cub", "behind")
            found[is_new, case.said == "bear"] += bool(visit.pose)
    seen = {
        is_new: found[is_new, True] / (found[is_new, True] + found[is_new, False])
        for is_new in (True, False)
    }
    assert seen[True] < 0.5
    assert 0.65 < seen[False] < 0.9
