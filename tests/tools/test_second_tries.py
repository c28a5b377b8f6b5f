"""A test that fails, or whose worker dies, is tried once more, and no worker asks before."""

import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow
CONFTEST = """
import pytest
from tests.second_tries import count_tries_in_workers

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    count_tries_in_workers(config)
"""
TESTS = """
import os
from pathlib import Path

import pytest

def is_first(name):
    mark = Path(__file__).with_name(name)
    is_new = not mark.exists()
    mark.touch()
    return is_new

def test_fails_once():
    assert not is_first("failed")

def test_dies_once():
    if is_first("died"):
        os._exit(1)

def test_fails_always():
    assert is_first("never") is None

def test_dies_always():
    os._exit(1)

def test_asks_nobody(request):
    counts = request.config.failures_db
    counts._set("a", "f", 1)
    assert counts._get("a", "f") == 0
"""


def test_each_is_tried_once_more_without_a_question(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_tries.py").write_text(TESTS)
    options = ["-q", "-n1", "--dist=worksteal", "--reruns=1", "-rRfE", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", os.devnull, "--rootdir=.", "."],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    tried = set(re.findall(r"^RERUN \S+::test_(\w+)", run.stdout, re.MULTILINE))
    failed = set(re.findall(r"^FAILED \S+::test_(\w+)", run.stdout, re.MULTILINE))
    assert tried == {"fails_once", "dies_once", "fails_always", "dies_always"}, run.stdout
    assert failed == {"fails_always", "dies_always"}, run.stdout
    assert "2 failed, 3 passed, 4 rerun" in run.stdout
