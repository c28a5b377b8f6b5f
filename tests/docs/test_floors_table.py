"""The table of ways to open cells, on the page of gates: means of the measured figures."""

import re

import pytest

from benchmarks.confidence_floors import MODELS, SETTINGS
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/concepts/gates.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
AUDITED = SETTINGS[1].name
CASES = 2_000
WAYS = {"one gate": "whole cell", "floors": "floors", "plain 90 %": "plain threshold 0.9"}


def read_measured(setting, model, way):
    """Return the share that the model decides, human decisions and wrong decisions."""
    row = re.escape(f"| {setting} | {model} | {way} |")
    (cells,) = re.findall(rf"^{row} (\S+) .*?\| (\S+) \| (\S+) \|", MEASURED, re.MULTILINE)
    return tuple(float(cell.replace(",", "")) for cell in cells)


@pytest.mark.parametrize("name", WAYS)
def test_the_page_has_the_means_of_three_networks(name):
    rows = [read_measured(AUDITED, model, WAYS[name]) for model in MODELS]
    share, human, wrong = (sum(column) / len(MODELS) for column in zip(*rows, strict=True))
    assert f"| {name} | {100 * share:.0f} % | {wrong:.0f} | {human:,.0f} |" in PAGE


@pytest.mark.parametrize("model", MODELS)
def test_floors_decide_more_than_one_gate_in_every_setting(model):
    for setting in SETTINGS:
        floors, whole = (
            read_measured(setting.name, model, way) for way in ("floors", "whole cell")
        )
        assert floors[0] > whole[0] + 0.1
        assert floors[1] <= CASES


FORECAST = {"cleanlab-cv": 0.730, "resnet-110": 0.733, "densenet-bc-L190-k40": 0.783}


@pytest.mark.parametrize("model", MODELS)
def test_the_share_is_within_five_points_of_a_simulation_of_gates_alone(model):
    assert read_measured(SETTINGS[0].name, model, "floors")[0] == pytest.approx(
        FORECAST[model], abs=0.05
    )
