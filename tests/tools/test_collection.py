"""What workers leave out or share when they collect."""

import sys
from types import SimpleNamespace

import pytest
from _pytest.assertion import rewrite

from tests import collection
from tests.collection import Needless, rewrite_share, rewritten_path


@pytest.fixture
def modules(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "TESTS", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    paths = [tmp_path / f"test_{name}.py" for name in "abc"]
    for path in paths:
        path.write_text("def test_sum():\n    assert 1 + 1 == 2\n", encoding="utf-8")
    return paths


@pytest.fixture
def worker(pytestconfig):
    def as_worker(place, *arguments):
        return SimpleNamespace(
            args=arguments,
            workerinput={"workerid": f"gw{place}", "workercount": 2},
            stash=pytestconfig.stash,
            getini=pytestconfig.getini,
        )

    return as_worker


def test_two_workers_rewrite_each_module_once(modules, worker, tmp_path):
    assert rewrite_share(worker(0, tmp_path)) == 2
    assert [rewritten_path(path).exists() for path in modules] == [True, False, True]
    assert rewrite_share(worker(0, tmp_path)) == 1  # alone it would go on
    assert all(rewrite._read_pyc(path, rewritten_path(path)) for path in modules)
    assert rewrite_share(worker(1, tmp_path)) == 0


def test_who_names_tests_rewrites_them_alone(modules, worker):
    assert rewrite_share(worker(0, modules[0])) == 0
    assert not rewritten_path(modules[0]).exists()


@pytest.mark.parametrize(
    ("chosen", "folder", "is_left_out"),
    [("fast", "browser", True), ("", "browser", None), ("fast", "api", None)],
)
def test_folders_of_another_part_are_left_out(chosen, folder, is_left_out):
    config = SimpleNamespace(option=SimpleNamespace(markexpr=chosen))
    assert Needless().pytest_ignore_collect(collection.TESTS / folder, config) is is_left_out


@pytest.mark.parametrize(
    ("line", "is_left_out"),
    [
        ("pytestmark = pytest.mark.slow", True),
        ("pytestmark = [pytest.mark.enable_socket, pytest.mark.faults]", True),
        ("pytestmark = pytest.mark.enable_socket", None),
        ("    pytestmark = pytest.mark.slow", None),
    ],
)
def test_modules_of_another_part_are_left_out(modules, line, is_left_out):
    modules[0].write_text(f"import pytest\n{line}\n", encoding="utf-8")
    for chosen, expected in (("fast", is_left_out), ("not fast", None)):
        config = SimpleNamespace(option=SimpleNamespace(markexpr=chosen))
        assert Needless().pytest_ignore_collect(modules[0], config) is expected


def test_examples_are_searched_where_there_are_some(request, tmp_path):
    path = tmp_path / "numbers.py"
    for text, left in (("sum([1])\n", 0), ('"""\n>>> sum([1])\n1\n"""\n', 1)):
        path.write_text(text, encoding="utf-8")
        collectors = [collection.DoctestModule.from_parent(request.session, path=path)]
        step = Needless().pytest_collect_file(path)
        next(step)
        with pytest.raises(StopIteration) as end:
            step.send(collectors)
        assert len(end.value.value) == left
