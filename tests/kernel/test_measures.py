"""Measures: one class each, listed once; what asks them needs no change for another one."""

import json
import os
import pkgutil
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from inspect import isabstract
from pathlib import Path

import pytest

import rollout.kernel.measures
from rollout.kernel.measures import MEASURES, Condition, Measure, Statistic, ThresholdUnit, Watch
from rollout.kernel.units import MISSING, NOT_PREDICTED, Lever, UnitClass
from tests.factories import policy

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def list_classes(base=Measure):
    for child in base.__subclasses__():
        yield child
        yield from list_classes(child)


def test_each_class_of_the_folder_is_listed_once():
    folder = rollout.kernel.measures
    for module in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
        import_module(module.name)
    ours = (child for child in list_classes() if child.__module__.startswith(folder.__name__))
    complete = [child for child in ours if not isabstract(child)]
    assert sorted(child.__name__ for child in complete) == sorted(
        type(measure).__name__ for measure in MEASURES.values()
    )
    assert len({child.name for child in complete}) == len(MEASURES) == 14


def test_a_class_that_lacks_something_makes_no_measure():
    class Forgotten(Measure):
        name = "forgotten"
        definition = "what somebody began"
        example = "1"
        unit = ThresholdUnit.SHARE
        watch = Watch.UNITS

    with pytest.raises(TypeError, match=r"against.*guard_effect"):
        Forgotten()


@pytest.mark.parametrize("measure", MEASURES.values(), ids=str)
def test_abilities_of_a_measure_fit_together(measure):
    assert measure.for_gate <= (measure.statistic is not Statistic.NONE)
    assert measure.is_rated <= measure.for_gate
    assert (measure.watch is Watch.UNITS) <= (measure.statistic is not Statistic.NONE)
    assert not (measure.is_operational and measure.is_quality)
    width = measure.get_width(4)
    assert len(measure.weigh_losses((0, 0.2, 0.5, 1))) == width or measure.watch is not Watch.UNITS
    assert set(measure.list_columns_against(width)) < set(range(width))
    for share in (0.1, 0.95):
        assert measure.from_share(measure.to_share(share)) == pytest.approx(share)


ALARM = Lever("alarm", labels=("bear", "none"), actions=("siren", "nothing"))
TAGS = Lever("tags", labels=("bear", "none"), actions=("bear", "none"), many=True)


@pytest.mark.parametrize(
    ("lever", "predicted", "decided", "columns"),
    [
        (ALARM, "bear", "bear", (0, 0, 0, 2)),
        (ALARM, "none", "bear", (1, 1, None, 1)),
        (ALARM, "bear", "none", (1, None, 1, 0)),
        (ALARM, "none", "none", (0, None, None, 2)),
        (ALARM, "bear", MISSING, (1, None, 1, None)),
        (ALARM, NOT_PREDICTED, "bear", (1, 1, 1, 1)),
        (ALARM, NOT_PREDICTED, "none", (1, None, 1, 2)),
        (ALARM, NOT_PREDICTED, MISSING, (1, None, 1, None)),
        (TAGS, "bear;none", "bear", (1, 0, 0, None)),
        (TAGS, "bear;none", "none", (1, None, 1, None)),
        (TAGS, "none", "bear;none", (1, 1, None, None)),
        (TAGS, "bear", MISSING, (1, None, 1, None)),
    ],
)
def test_a_unit_speaks_for_a_measure_against_it_or_not_at_all(lever, predicted, decided, columns):
    """0 for, 1 against; of action changes 0 the model alone, 1 the human alone, 2 neither."""
    rules = policy(levers=(lever,))
    unit = UnitClass(lever.id, predicted, decided)
    conditions = [
        Condition(MEASURES["agreement"], 0.9),
        Condition(MEASURES["recall"], 0.9, lever=lever.id, label="bear"),
        Condition(MEASURES["precision"], 0.9, lever=lever.id, label="bear"),
        Condition(MEASURES["action_change"], 2, lever=lever.id, action="siren"),
    ]
    counted = tuple(c.measure.find_column(c, unit, rules) for c in conditions)
    assert counted == columns
    elsewhere = replace(unit, lever="price")
    assert {c.measure.find_column(c, elsewhere, rules) for c in conditions} == {None}


@pytest.mark.slow
def test_another_measure_is_one_class_and_one_entry(tmp_path):
    copy = tmp_path / "rollout"
    shutil.copytree(ROOT / "rollout", copy)  # with its byte code
    folder = copy / "kernel/measures"
    shutil.copy(HERE / "f1_measure.py", folder / "f1.py")
    listing = (folder / "__init__.py").read_text("utf-8")
    for line, before in (
        ("from rollout.kernel.measures.f1 import F1\n", "from rollout.kernel.measures.measure"),
        ("            F1(),\n", "            COST,"),
    ):
        listing = listing.replace(before, line + before)
    (folder / "__init__.py").write_text(listing, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, HERE / "f1_story.py"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    story = json.loads(ran.stdout)
    # 60 of 100 that either side called a bear were one for both: 2 · 60 / (80 + 80)
    assert (story["counts"], story["met"]) == ([60, 40], True)
    assert story["estimate"] == pytest.approx(0.75)
    assert 0.6 < story["bound"] < 0.61
    assert story["condition"] == "f1 of bear at least 60 %"
    # 1.4 times the error that the gate permits
    assert story["guards"][0] == "f1 of bear at least 44 %"
    # recall and precision of 90 %, of 30 % bears: .33 of the units have one on either side
    assert story["rate"] == pytest.approx([0.33, 0.9 / 1.1])
    assert (
        "f1 of bear at least 60 %: about 14 decisions on bear (42 units), 5 hours, at 90 %"
        in (story["plan"])
    )
    assert "assumed: f1 is as high as agreement" in story["plan"]
    assert story["schema"]
