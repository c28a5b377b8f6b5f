"""Every sentence is renamed, and no figure, state, decision, id or event is another one."""

import json
import re
import sys
from contextlib import contextmanager, nullcontext
from functools import wraps
from importlib import import_module
from inspect import isfunction
from itertools import chain, zip_longest
from unittest import mock

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor, NarrowCells
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.stops import StopTarget
from rollout.features.proposals import proposals
from rollout.features.reports.archive import request_report
from rollout.features.reports.builder import ReportOptions
from rollout.features.stops.stops import propose_resume, stop_cells
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.measures import Condition
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.browser import town as towns
from tests.browser.town import NAME, PEOPLE, scope_of
from tests.chance import without_chance
from tests.console.incidents.attacked_town import R
from tests.console.web_kit.test_console_worlds import HEAD_CODE, VARIES, founded, list_questions

pytestmark = pytest.mark.slow

MARK = "¤ "
CATALOGUE = (
    "rollout.kernel.words",
    "rollout.features.reports.figures.evidence_facts",
    *(
        f"rollout.engine.words.{name}"
        for name in ("event_text", "evidence_text", "rule_text", "state_text")
    ),
)
PAGES = (
    "/", "/incidents", "/stop", "/ledger", "/reports", R, f"{R}/cells/creek/day", f"{R}/proposals",
    f"{R}/cells/lake/day", *(f"{R}/proposals/P-{number}" for number in range(1, 9)), f"{R}/ledger",
    f"{R}/incidents/I-1", f"{R}/stops", f"{R}/divergences", f"{R}/cases/creek-0206",
    f"{R}/reports/1/about", f"{R}/settings",
)  # fmt: skip
SENTENCES = {
    "against", "condition", "gates", "guard", "guards", "missing", "name", "next_step", "promises",
    "reason", "short_text", "text", "texts",
}  # fmt: skip
DIGESTS = {"hash", "head"}
DIGEST = re.compile(r"(?=[0-9]*[a-f])[0-9a-f]{8,64}|>[0-9a-f …]{9,}</code>", re.IGNORECASE)
"""Of a sealed report, which holds sentences, and of its entry in the ledger, the last one."""
VERSION = re.compile(r'data-(?:revision|of)="[^"]*"')
"""Of the state, and of what a page says, by which it draws itself anew."""
LAKE, ANA = Cell("lake", "day"), Caller("ana", role_assignments=PEOPLE["ana"])


def rename(value):
    """Return other words, in which no part of a sentence is still found."""
    if isinstance(value, str):
        return MARK + value.upper() if value else value
    return value


@contextmanager
def renamed_sentences():
    """Rename what the catalogue says, wherever it was imported, and each condition."""
    with pytest.MonkeyPatch.context() as patch:
        catalogue = [vars(import_module(name)).items() for name in CATALOGUE]
        ours = [each for name, each in sys.modules.items() if name.startswith(("rollout", "api"))]
        for name, sentence in chain.from_iterable(catalogue):
            is_own = isfunction(sentence) and sentence.__module__ in CATALOGUE
            if not is_own or sentence.__annotations__.get("return") not in {str, "str"}:
                continue
            for module in ours:
                if vars(module).get(name) is sentence:
                    patch.setattr(module, name, _rename_result(sentence))
        patch.setattr(Condition, "_describe_measured", _rename_result(Condition._describe_measured))
        yield


def _rename_result(sentence):
    @wraps(sentence)
    def say(*args, **options):
        return rename(sentence(*args, **options))

    return say


def play(town):
    """Let a cell be widened, narrowed by its guard and by a user, stopped and resumed.

    Yields moments at which pages are looked at.
    """
    town.play_hours(14)
    yield "proposed"
    approve_all(town)
    town.play_hours(1)
    town.play_hours(7, sites=("creek",), right=0.0)
    yield "in alarm"
    stop = stop_cells(
        town.database, ANA, NAME, StopTarget(cells=(LAKE,)), at=town.clock.now(), reason="snow"
    )
    propose_resume(town.database, ANA, NAME, stop.stop, at=town.clock.now())
    yield "stopped"
    approve_all(town)
    town.play_hours(6)
    narrowing = NarrowCells(
        at=town.clock.now(), by=Actor("ana", ("operator",)), cells=(LAKE,), to="shadow"
    )
    execute_command(town.database, NAME, lambda _: narrowing)
    text = towns.POLICY.replace(json.dumps(towns.ODD), towns.PLAIN).replace(towns.PLACE_HINT, "")
    looser = text.replace("\nlease: 1m", "\nlease: 2m")
    apply_policy(town.database, looser, Actor("zoe"), town.clock.now())
    yield "a looser policy"
    approve_all(town)
    town.play_hours(8)
    yield "at the end"


def approve_all(town):
    """Let users approve what is open; nobody approves their own."""
    for proposal in scope_of(town).proposals.values():
        others = iter([name for name in ("ana", "bo", "cy") if name != proposal.raised_by])
        for need in () if proposal.is_approved else proposal.needs:
            name = "sue" if need == "safety" else next(others)
            by = Caller(name, role_assignments=PEOPLE[name])
            proposals.approve_proposal(
                town.database, by, NAME, proposal.id, proposal.evidence_hash, at=town.clock.now()
            )


def look(folder, words):
    """Return the ledger's rows, what the API answers, and the pages of a town."""
    with without_chance(), founded(folder) as (town, browser), words():
        pages = {}
        for moment in play(town):
            browser.as_("ana")
            pages |= {(moment, path): browser.get(f"/console{path}") for path in PAGES}
        with town.database.begin_read() as transaction:
            rows = list(Ledger(transaction, Rollouts(transaction).find(NAME)).list_lines())
        request_report(town.database, ANA, NAME, "weekly", ReportOptions(), town.clock.now())
        answers = {path: town.box.get(path) for path in list_questions(browser.app)}
        answers["report.json"] = town.box.get(
            f"/v1{R}/reports/1", headers={"Accept": "application/json"}
        )
    return rows, answers, pages


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    with mock.patch("api.limits.ANONYMOUS_BURST", 1e9):
        return [
            look(tmp_path_factory.mktemp("town"), words)
            for words in (nullcontext, renamed_sentences)
        ]


def test_no_entry_of_the_ledger_depends_on_a_sentence(looks):
    (plain, _, _), (renamed, _, _) = looks
    happened = {json.loads(row)["kind"] for row in plain}
    assert {"Widened", "Narrowed", "IncidentOpened", "Resumed", "PolicyApplied"} <= happened
    assert any('"alarms":[{' in row for row in plain)
    assert renamed == plain


def test_the_api_answers_the_same_but_for_sentences(looks):
    (_, plain, _), (_, renamed, _) = looks
    keys = set()
    for path, answer in plain.items():
        assert renamed[path].status_code == answer.status_code, path
        if answer.headers.get("content-type", "") == "application/json":
            keys |= set(list_renamed(answer.json(), renamed[path].json(), path))
    assert keys == SENTENCES | DIGESTS


def list_renamed(plain, renamed, key):
    """Yield the keys of sentences that are renamed; nothing else may differ."""
    if isinstance(plain, dict):
        assert plain.keys() == renamed.keys(), key
        for name, value in plain.items():
            yield from list_renamed(value, renamed[name], name)
    elif isinstance(plain, list):
        assert len(plain) == len(renamed), key
        for value, other in zip(plain, renamed, strict=True):
            yield from list_renamed(value, other, key)
    elif key in {"head_code", "permit"} or plain == renamed:  # of a random key of the service
        return
    else:
        assert MARK in renamed or (DIGEST.fullmatch(plain) and DIGEST.fullmatch(renamed)), key
        yield key


def test_pages_have_the_same_parts_and_figures(looks):
    (_, _, plain), (_, _, renamed) = looks
    differing = {
        path: difference
        for path, page in plain.items()
        if (difference := compare(outline(page), outline(renamed[path])))
    }
    assert not differing, "\n".join(map(str, differing.items()))
    assert sum(MARK in page.text for page in renamed.values()) > len(PAGES)


def outline(page):
    """Return a page's status, its elements with their classes, and its figures, in their order."""
    text = page.text
    for varying in (VARIES, HEAD_CODE, VERSION, DIGEST):
        text = varying.sub("", text)
    figures = re.findall(r"<\w+|class=\"[^\"]*\"|\d+(?:[.,:]\d+)*", text)
    return [str(page.status_code), *figures]


def compare(plain, renamed):
    """Return where two lists part, with what comes before and after; () if they are equal."""
    if plain == renamed:
        return ()
    pairs = enumerate(zip_longest(plain, renamed))
    at = next(n for n, (first, second) in pairs if first != second)
    return tuple(" ".join(each[max(at - 6, 0) : at + 6]) for each in (plain, renamed))
