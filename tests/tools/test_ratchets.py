"""Ratchets: what is counted, and that no count is above its limit."""

import ast
import tomllib

import pytest

from tests.docs.pages import ROOT, text_of
from tests.tools.measured_work import measure_work
from tools import ratchets

TABLE = tomllib.loads(ratchets.LIMITS.read_text(encoding="utf-8"))


def test_a_case_a_tick_and_an_approval_do_no_more_than_their_limits():
    counts = ratchets.Counts(measure_work(), ratchets.read_limits(TABLE))
    assert list(counts.list_faults()) == []
    assert set(counts.values) == set(TABLE["run"])
    assert all(value > 0 for value in counts.values.values())


def test_lint_compares_the_tree():
    assert "$(BIN)/python tools/ratchets.py" in text_of("Makefile")


def test_a_count_above_its_limit_and_one_without_a_limit_are_faults():
    counts = ratchets.Counts({"modules": 3, "commands": 2, "new": 1}, {"modules": 2, "commands": 2})
    above, unlimited = counts.list_faults()
    assert above.startswith("modules is 3, 1 above its limit 2")
    assert unlimited.startswith("new is 1 and has no limit")


def test_limits_fall_with_counts_and_never_rise(tmp_path, monkeypatch):
    limits = tmp_path / "ratchets.toml"
    limits.write_text(
        '[tree]\nmodules = 9\ncommands = 2\n[options]\nsets = {branch = 7, words = ["s"]}\n'
    )
    monkeypatch.setattr(ratchets, "LIMITS", limits)
    ratchets.lower_limits({"modules": 3, "commands": 5, "options.sets": 4})
    table = tomllib.loads(limits.read_text())
    assert table["tree"] == {"modules": 3, "commands": 2}
    assert table["options"]["sets"]["branch"] == 4


@pytest.mark.parametrize(
    "line",
    [
        "if unit.floors: pass",
        "x = 1 if floor_of(y) else 2",
        "x = [one for one in many if one.kind == 'floor']",
        "while has_floor and x: pass",
        "x = y or lowest_floor",
        "match kind:\n    case 'floor': pass",
    ],
)
def test_a_condition_that_names_an_option_is_found(line):
    module = ratchets.CodeModule(ROOT, ast.parse(line))
    assert any("floor" in name for name in module.conditions)


@pytest.mark.parametrize(
    "line", ["x = floors", "f(floor=1)", "def floor(): return 1", "'''floor'''"]
)
def test_a_name_outside_conditions_is_none(line):
    assert not ratchets.CodeModule(ROOT, ast.parse(line)).conditions


@pytest.mark.parametrize(("text", "length"), [("", 0), ("x = 1\n\ny = (\n    2\n)\n", 5)])
def test_a_module_is_as_long_as_its_last_statement_ends(text, length):
    assert ratchets.CodeModule(ROOT, ast.parse(text)).length == length


def test_statements_leave_docstrings_out():
    assert (
        ratchets.count_statements(
            ast.parse('"""A."""\nx = 1\ndef f():\n    """B."""\n    return x')
        )
        == 3
    )


def test_twins_share_most_fields_and_no_base():
    text = "class {}({}):\n    a: int\n    b: int\n    c: int\n    {}: int\n"

    def count(*classes):
        module = ratchets.CodeModule(ROOT, ast.parse("".join(text.format(*one) for one in classes)))
        return ratchets.count_twins(list(ratchets.list_classes([module])))

    assert count(("A", "", "d"), ("B", "", "e")) == 2
    assert count(("A", "Base", "d"), ("B", "Base", "e")) == 0
    assert count(("A", "BaseModel", "d"), ("B", "BaseModel", "e")) == 2
    assert count(("A", "", "d")) == 0


def test_keys_of_a_policy_are_counted_at_each_place():
    row = {"properties": {"id": {}, "of": {"$ref": "#/$defs/Of"}}}
    of = {"properties": {"a": {}, "b": {"anyOf": [{"type": "null"}, {"properties": {"c": {}}}]}}}
    schema = {"properties": {"rows": {"items": row}}, "$defs": {"Of": of}}
    assert list(ratchets.list_keys(schema, schema)) == ["rows", "id", "of", "a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("isinstance(x, Narrowed)", 1),
        ("isinstance(x, events.Narrowed | int)", 1),
        ("BOTH = (Narrowed, int)\nisinstance(x, BOTH)", 1),
        ("match x:\n    case Narrowed(): pass\n    case CellEvent(): pass", 2),
        ("type(x) is Narrowed", 1),
        ("isinstance(x, int)", 0),
        ("ledger.list_of(Narrowed)", 0),
    ],
)
def test_a_question_after_a_kind_counts_outside_its_modules(line, count):
    kinds = "class CellEvent(LedgerEvent): pass\nclass Narrowed(CellEvent): pass"
    modules = [
        ratchets.CodeModule(ROOT / name, ast.parse(text))
        for name, text in [("rollout/a/kinds.py", kinds + "\n" + line), ("api/b.py", line)]
    ]
    counted = ratchets.count_kind_tests(modules, ROOT, "LedgerEvent", ("rollout/a/",))
    assert counted == count


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("say_void(cause).removesuffix('s')", 1),
        ("words.describe_edit(x).split(': ')", 1),
        ("'exposure' in event.reason", 1),
        ("WORD not in closed_reason", 1),
        ("event.reason.startswith(NO_PLACE)", 1),
        ("'\\0' in reason", 0),
        ("format_percent(x).replace(NO_BREAK_SPACE, ' ')", 0),
        ("reason in {ONLY_ASSISTED}", 0),
        ("path.split('/')", 0),
    ],
)
def test_reading_an_own_sentence_counts(line, count):
    assert sum(map(ratchets.reads_words, ast.walk(ast.parse(line)))) == count


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("describe_event(x).text.lstrip(': ')", 1),
        ("to_sentence(cells)[:-1]", 1),
        ("format_percent(low)[:-2]", 1),
        ("LINE_FULL[0].upper()", 1),
        ("capitalize_first(str(error))", 1),
        ("str(error).capitalize()", 1),
        ("event.reason.lower()", 1),
        ("capitalize_first(lever)", 0),
        ("error.errors()[:3]", 0),
        ("CASE_PREFIX.rstrip('-')", 0),
        ("name.lower()", 0),
    ],
)
def test_bending_an_own_sentence_counts(line, count):
    assert sum(map(ratchets.bends_words, ast.walk(ast.parse(line)))) == count


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("rollout/features/stops/cli.py", 0),
        ("api/stops/pages.py", 0),
        ("rollout/cli/main.py", 0),
        ("rollout/features/cells/cells.py", 1),
        ("api/cells/pages.py", 1),
        ("rollout/live/ticks.py", 1),
    ],
)
def test_a_module_of_a_feature_is_open_when_another_folder_imports_it(tmp_path, place, count):
    imported = ratchets.CodeModule(tmp_path / "rollout/features/stops/stops.py", ast.parse(""))
    for line in (
        "from rollout.features.stops.stops import A",
        "from rollout.features.stops import stops",
    ):
        importing = ratchets.CodeModule(tmp_path / place, ast.parse(line))
        assert ratchets.count_open_modules([imported, importing], tmp_path) == count
