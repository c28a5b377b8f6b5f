"""The sample that `.ci/run` takes: the commit alone chooses it, and timed parts end."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from tests.samples import BUDGETS, MINUTES, TIMED, Sample, choose_look, draw, find_budgets

NAMES = [f"tests/a/test_b.py::test_{number}" for number in range(400)]


def item_of(nodeid, **params):
    return SimpleNamespace(nodeid=nodeid, callspec=SimpleNamespace(params=params))


def sample_of(part, names, tmp_path, commit="c0ffee"):
    spent = tmp_path / "seconds"
    spent.touch()
    return Sample(commit, dict.fromkeys(names, part), spent, workers=3)


def chosen(part, names, tmp_path, commit="c0ffee"):
    items, left_out = sample_of(part, names, tmp_path, commit).choose(map(item_of, names))
    assert len(items) + len(left_out) == len(names)
    return [item.nodeid for item in items]


@pytest.mark.parametrize("part", ["exhaustive", "slow"])
def test_two_commits_begin_with_other_tests(part, tmp_path):
    names = [f"tests/a/test_{number % 100}.py::test_{number}" for number in range(400)]
    first, second = (chosen(part, names, tmp_path, commit)[:100] for commit in ("aa", "bb"))
    assert first == chosen(part, names, tmp_path, "aa")[:100]
    assert 50 < len(set(first) - set(second)) < 95


def test_half_of_the_slow_tests_are_drawn_and_those_of_a_module_follow_each_other(tmp_path):
    names = [
        f"tests/a/test_{number}.py::test_{name}" for number in range(50) for name in "abcdefgh"
    ]
    drawn = chosen("slow", names, tmp_path)
    assert 160 < len(drawn) < 240
    modules = [name.partition("::")[0] for name in drawn]
    in_turn = list(dict.fromkeys(modules))
    assert modules == [module for module in in_turn for _ in range(modules.count(module))]
    assert in_turn != sorted(in_turn)
    assert all(a < b for a, b in pairwise(drawn) if a[:-1] == b[:-1]), "as they stand there"


def test_a_slow_machine_gives_the_timed_parts_less_but_no_less_than_half():
    whole, half, between = map(find_budgets, ("", "-60", "480"))
    assert whole == MINUTES
    for part, minutes in MINUTES.items():
        assert half[part] == minutes / (2 if part in TIMED else 1)
        assert (half[part] < between[part] < minutes) is (part in TIMED)
    assert sum(between.values()) == pytest.approx(7)


@pytest.mark.parametrize("part", ["fast", "postgres"])
def test_parts_that_other_recipes_run_are_left_out(part, tmp_path):
    assert chosen(part, NAMES, tmp_path) == []


def test_quarter_of_the_pages_is_looked_at_in_one_width_and_scheme(tmp_path):
    looks = [
        item_of(f"tests/browser/test_p.py::test_fits[{page}-{width}]", page=page, width=width)
        for page in range(200)
        for width in (1280, 360)
    ]
    sample = sample_of("browser", [look.nodeid for look in looks], tmp_path)
    items, _ = sample.choose(looks)
    pages = [item.callspec.params["page"] for item in items]
    assert 30 < len(pages) < 75
    assert len(set(pages)) == len(pages)
    assert {item.callspec.params["width"] for item in items} == {1280, 360}


def test_the_readme_and_the_tutorial_are_the_first_hour(tmp_path):
    names = [f"tests/first_hour/test_{name}.py::test_a" for name in ("readme", "nginx", "tutorial")]
    assert chosen("first_hour", names, tmp_path) == [names[0], names[2]]


@pytest.mark.parametrize("part", [part for part in TIMED if part != "slow"])
def test_a_timed_part_is_shuffled_and_ends_when_its_seconds_are_spent(part, tmp_path):
    names = chosen(part, NAMES, tmp_path)
    assert sorted(names) == sorted(NAMES)
    assert names != NAMES
    assert names != chosen(part, NAMES, tmp_path, "another")
    sample = sample_of(part, names, tmp_path)
    report = SimpleNamespace(nodeid=names[0], duration=179.0 * BUDGETS[part])
    sample.pytest_runtest_logreport(report)
    sample.pytest_runtest_setup(item_of(names[1]))
    sample.pytest_runtest_logreport(SimpleNamespace(nodeid=names[1], duration=1.1 * BUDGETS[part]))
    with pytest.raises(pytest.skip.Exception, match="seconds are spent"):
        sample.pytest_runtest_setup(item_of(names[2]))


def test_a_whole_run_shows_every_look(monkeypatch):
    looks = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]
    monkeypatch.setattr("tests.samples.COMMIT", "")
    assert choose_look(looks, "users") == looks
    monkeypatch.setattr("tests.samples.COMMIT", "c0ffee")
    assert choose_look(looks, "users") == [looks[draw("users", "c0ffee") % 4]]
