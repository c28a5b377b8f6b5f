"""The check of names finds what it is for, and nothing else."""

import pytest

from tools.check_names import find_faults, main


def faults_in(folder, **modules):
    paths = []
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
        paths.append(folder / f"{name}.py")
    return [fault.replace(f"{folder}/", "") for fault in find_faults(paths)]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("class Seen: ...", "page.py:1: class Seen"),
        ("def told(): ...", "page.py:1: function told"),
        ("class A:\n    async def _held(self): ...", "page.py:2: function _held"),
        ("def read(stood, /): ...", "page.py:1: parameter stood"),
        ("def read(*, given=1): ...", "page.py:1: parameter given"),
        ("key = lambda one: one", "page.py:1: parameter one"),
        ("def read():\n    for one in []: ...", "page.py:2: variable one"),
    ],
)
def test_a_private_word_is_found_wherever_it_names_something(tmp_path, text, place):
    (fault,) = faults_in(tmp_path, page=text)
    assert fault.startswith(place)


def test_a_module_may_not_be_called_so_either(tmp_path):
    (fault,) = faults_in(tmp_path, known="")
    assert fault.startswith("known.py:1: module known")


def test_a_word_inside_a_longer_name_is_left_alone(tmp_path):
    assert not faults_in(tmp_path, page="def first_seen(last_known): ...\nclass SeenHeads: ...")


def test_a_class_name_that_exists_twice_is_found(tmp_path):
    faults = faults_in(tmp_path, first="class Row: ...", second="class Row: ...\nclass Cell: ...")
    assert faults == [
        "second.py:1: class Row: also in first.py:1; give each class a name of its own"
    ]


def test_a_field_keeps_its_name(tmp_path):
    assert not faults_in(tmp_path, page="class Page:\n    seen: int\n    known = 1")


def test_a_tree_is_clean_or_its_faults_are_printed(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # `make lint` checks the tree of the project
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "page.py").write_text("title = 1")
    assert main() == 0
    (tmp_path / "api" / "page.py").write_text("stood = 1")
    assert main() == 1
    assert "api/page.py:1: variable stood" in capsys.readouterr().err


def test_helpers_of_tests_are_checked_and_tests_are_not(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_page.py").write_text("stood = 1")
    assert main() == 0
    (tmp_path / "tests" / "factories.py").write_text("told = 1")
    assert main() == 1
    assert capsys.readouterr().err == (
        "tests/factories.py:1: variable told: name what it is, not what happened to it"
        " (docs/glossary.md)\n"
    )
