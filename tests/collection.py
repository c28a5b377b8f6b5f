"""Collecting in less time: each worker does it before its first test.

pytest rewrites the asserts of test modules, which costs more than their import. On a clean clone
each worker would rewrite all of them; here each rewrites its share and reads what others wrote.
"""

import re
import sys
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from _pytest.doctest import DoctestModule

from tests.parts import BY_HAND, FOLDERS

TESTS = Path(__file__).parent
OTHER_PARTS = {TESTS.parent / folder for folder in FOLDERS}
OTHER_MODULE = re.compile(rf"^pytestmark = .*\bpytest\.mark\.({'|'.join(BY_HAND)})\b", re.MULTILINE)


def rewrite_share(config: pytest.Config) -> int:
    """Rewrite the stale modules of a worker that collects all tests; return how many they were."""
    worker = getattr(config, "workerinput", None)
    is_whole = TESTS in {Path(argument).resolve() for argument in config.args}
    if worker is None or not is_whole or sys.dont_write_bytecode:
        return 0
    place, workers = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    stale = [path for path in sorted(TESTS.rglob("test_*.py")) if is_stale(path)]
    for path in stale[place::workers]:
        rewrite_module(path, config)
    return len(stale[place::workers])


def is_stale(path: Path) -> bool:
    """Return whether a module may have changed since it was rewritten; pytest looks closely."""
    rewritten = rewritten_path(path)
    return not rewritten.exists() or rewritten.stat().st_mtime < path.stat().st_mtime


def rewritten_path(path: Path) -> Path:
    """Return where pytest looks for a rewritten module."""
    return rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"


def rewrite_module(path: Path, config: pytest.Config) -> None:
    """Write a module as pytest does when it imports it."""
    rewritten = rewritten_path(path)
    if rewrite.try_makedirs(rewritten.parent):
        source_hash, code = rewrite._rewrite_test(path, config)
        state = config.stash[rewrite.assertstate_key]
        rewrite._write_pyc(state, code, source_hash, rewritten)


class Needless:
    """Leaves out what a run collects for nothing."""

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        """Leave out folders and modules of another part than the only one that is run."""
        if config.option.markexpr != "fast":
            return None  # others may still leave it out
        is_other = collection_path in OTHER_PARTS or (
            collection_path.match("test_*.py")
            and OTHER_MODULE.search(collection_path.read_text(encoding="utf-8"))
        )
        return bool(is_other) or None

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path) -> object:
        """Search modules for examples only if they have one."""
        collectors = yield
        if b">>> " in file_path.read_bytes():
            return collectors
        return [each for each in collectors if not isinstance(each, DoctestModule)]
