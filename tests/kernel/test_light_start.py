"""What the core does without until it is asked: a service at rest holds less."""

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.mark.slow
def test_the_core_brings_no_special_functions_before_one_is_asked_for():
    here = ROOT / "rollout/kernel"
    files = (file.relative_to(here).with_suffix("") for file in here.rglob("*.py"))
    names = ", ".join(f"rollout.kernel.{'.'.join(file.parts)}" for file in files)
    asks = f"import sys, {names}\nprint('scipy.special' in sys.modules)"
    asks += "\nrollout.kernel.statistics.evidence.compute_lower_bound(98, 2, alpha=0.05)"
    asks += "\nprint('scipy.special' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True"]
