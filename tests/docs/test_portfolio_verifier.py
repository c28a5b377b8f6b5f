"""docs/how-to/verify_portfolios.py: it finds what a portfolio did not allow, from rows alone."""

import ast
import json
import sys
from functools import cache

import pytest

from rollout.core.scope.events import ProposalRaised, TakenOver, Widened
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import Scope
from tests.docs.pages import ROOT
from tests.ledger_verifier import VERIFIER, load_page_program, read_lines, rehash, write_ledger
from tests.replay.test_portfolios import list_floored, replay, replay_floored

FILE = ROOT / "docs/how-to/verify_portfolios.py"


PORTFOLIOS = load_page_program(FILE)


def test_a_stranger_can_read_it_too():
    text = FILE.read_text("utf-8")
    assert len(text.splitlines()) <= 240
    froms = {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)}
    names = {
        a.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import) for a in n.names
    }
    packages = {name.partition(".")[0] for name in froms | names}
    assert packages - sys.stdlib_module_names == {"verify_ledger"}


def find_differences(lines):
    return PORTFOLIOS.RecomputedPortfolios(read_lines(lines)).differences


@pytest.mark.slow
@pytest.mark.parametrize(
    ("play", "seeds", "least"),
    [(replay, range(24), 20), (replay_floored, list_floored(range(30)), 10)],
)
def test_it_allows_what_the_program_did_and_finds_the_same_places(play, seeds, least):
    raised, widened = 0, 0
    for seed in seeds:
        events = play(seed).events
        state = PORTFOLIOS.RecomputedPortfolios(read_lines(write_ledger("story", events)))
        assert state.differences == []
        expected = {
            name: {
                (p.cell.site, p.cell.window, p.version, p.attempt, p.floor): p.score for p in places
            }
            for name, places in apply_events(events, Scope()).portfolios.items()
        }
        assert {name: p.scores for name, p in state.portfolios.items() if p.scores} == expected
        raised += sum(isinstance(e, ProposalRaised) and e.portfolio_opened > 1 for e in events)
        widened += sum(isinstance(e, Widened | TakenOver) for e in events)
    assert min(raised, widened) > least


# Ledgers that were bent


@cache
def find_story():
    """Return the rows of a ledger with two widenings of a tick that need each other.

    Also returned are the places of the two widenings, and of the rows that raised them.
    """
    for seed in range(24):
        lines = write_ledger("story", replay(seed).events)
        rows = [json.loads(line) for line in lines]
        raised = {r["body"]["proposal"]: i for i, r in enumerate(rows) if is_listed(r)}
        for i, row in enumerate(rows[:-1]):
            following = rows[i + 1]
            kinds = {row["kind"], following["kind"]}
            if kinds != {"Widened"} or row["slot"] != following["slot"]:
                continue
            names = [r["body"]["proposal"] for r in (row, following)]
            if not set(names) <= set(raised):
                continue
            without = rehash([*rows[: i + 1], *rows[i + 2 :]])
            if any("in its portfolio; 1 are widened" in text for text in find_differences(without)):
                return rows, (i, i + 1), tuple(raised[name] for name in names)
    raise AssertionError("no story has such widenings")


def is_listed(row):
    return row["kind"] == "ProposalRaised" and bool(row["body"].get("portfolio"))


def bend(place, old, new, rows=(), **fields):
    """Return the rows with a proposal's last reading and fields changed, all hashes right."""
    rows = [json.loads(json.dumps(row)) for row in rows or find_story()[0]]
    body = rows[place]["body"]
    assert old in body["readings"][-1]
    body["readings"][-1] = body["readings"][-1].replace(old, new)
    body.update(fields)
    (row,) = read_lines(rehash([{**rows[place], "previous": ""}]))
    body["evidence_hash"] = VERIFIER.RaisedProposal(row).evidence_hash
    for other in rows:
        if other["kind"] == "Approved" and other["body"]["proposal"] == body["proposal"]:
            other["body"]["evidence_hash"] = body["evidence_hash"]
    return rehash(rows)


def test_a_widening_that_its_portfolio_did_not_allow_is_named():
    rows, (first, second), _ = find_story()
    assert find_differences(rehash(rows)) == []
    bent = rehash([*rows[:second], *rows[second + 1 :]])
    size, name = find_size(rows[first]["body"]["proposal"]), rows[first]["body"]["proposal"]
    assert (
        f"row {first + 1}: Widened by {name} needs 2 of {size} in its portfolio; 1 are widened"
    ) in find_differences(bent)


def find_size(proposal):
    rows, _, _ = find_story()
    (row,) = (r for r in rows if is_listed(r) and r["body"]["proposal"] == proposal)
    return row["body"]["portfolio_cells"]


@pytest.fixture
def raised():
    """Return the place of a proposal that needs another cell, and its body."""
    rows, _, (place, _) = find_story()
    return place, rows[place]["body"]


def test_a_raised_score_is_named(raised):
    place, body = raised
    score = body["portfolio_score"]
    higher = f"{float(score) + 0.7:.6f}"
    lines = bend(place, f"E·α {score}", f"E·α {higher}", portfolio_score=higher)
    (difference, *_) = find_differences(lines)
    text = f"row {place + 1}: ProposalRaised has the score {float(higher)} in its portfolio; its"
    assert difference.startswith(text)
    given = float(difference.rpartition(" ")[2])
    assert abs(given - float(score)) < 1e-5


def test_evidence_of_a_larger_share_of_risk_is_named(raised):
    place, body = raised
    share = body["readings"][-1].partition("false share ")[2].partition(":")[0]
    lines = bend(place, f"false share {share}", "false share 90 %")
    assert any("has a portfolio of" in text for text in find_differences(lines))
    assert any("its readings give" in text for text in find_differences(lines))


def test_a_number_of_opened_cells_that_the_list_has_not_is_named(raised):
    place, body = raised
    opened, rank, size = (body[f"portfolio_{key}"] for key in ("opened", "rank", "cells"))
    for other in (opened - 1, opened + 1):
        old, new = f"rank {rank} of {opened},", f"rank {rank} of {other},"
        found = find_differences(bend(place, old, new, portfolio_opened=other))
        start = f"row {place + 1}: ProposalRaised opens {other} of {size} in its portfolio;"
        assert any(text.startswith(start) for text in found), found


def test_a_proposal_below_those_that_its_list_opens_is_named():
    found = set()
    for seed in range(24):
        rows = [json.loads(line) for line in write_ledger("story", replay(seed).events)]
        for place in (i for i, row in enumerate(rows) if is_listed(row)):
            opened, rank, size = (
                rows[place]["body"][f"portfolio_{key}"] for key in ("opened", "rank", "cells")
            )
            if rank != opened or rank == 1:
                continue
            old, new = f"rank {rank} of {opened},", f"rank {rank} of {opened - 1},"
            lines = bend(place, old, new, rows=rows, portfolio_opened=opened - 1)
            differences = find_differences(lines)
            assert differences, (seed, place)
            text = f"needs {opened} of {size} in its portfolio; it opens {opened - 1}"
            found |= {seed for line in differences if len(differences) == 1 and text in line}
    assert found


def test_another_rank_is_named(raised):
    place, body = raised
    opened, rank = body["portfolio_opened"], body["portfolio_rank"]
    lines = bend(
        place, f"rank {rank} of {opened}", f"rank {rank + 1} of {opened}", portfolio_rank=rank + 1
    )
    text = f"has rank {rank + 1} in its portfolio; by its score it is {rank}"
    assert find_differences(lines) == [f"row {place + 1}: ProposalRaised {text}"]


def test_fewer_cells_than_other_proposals_of_the_list_have_are_named():
    rows, _, _ = find_story()
    listed = [i for i, row in enumerate(rows) if is_listed(row)]
    name = rows[listed[-1]]["body"]["portfolio"]
    place = [i for i in listed if rows[i]["body"]["portfolio"] == name][1]
    cells = rows[place]["body"]["portfolio_cells"]
    lines = bend(place, f"of {cells} cells", "of 1 cells", portfolio_cells=1)
    assert any("has a portfolio of 1 cells, false share" in t for t in find_differences(lines))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"portfolio_score": "9.000000"}, "of its portfolio, and 'portfolio of"),
        ({"portfolio": "supervised 0123456789ab 2020"}, "in attempt 1 of 2"),
        ({"portfolio": "supervised"}, "can't be recomputed"),
        ({"readings": ["agreement at least 90 %: all good"]}, "its last reading is 'agreement"),
    ],
    ids=["other field", "list of another year", "no list", "no line"],
)
def test_a_place_that_users_were_not_shown_is_named(raised, fields, problem):
    found = find_differences(bend(raised[0], "portfolio", "portfolio", **fields))
    assert any(problem in text for text in found), found


def test_the_command_prints_what_differs_and_each_list(tmp_path, capsys):
    rows, _, _ = find_story()
    path = tmp_path / "ledger.jsonl"

    def run(lines):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        code = PORTFOLIOS.main([str(path)])
        return code, capsys.readouterr()

    code, printed = run(rehash(rows))
    assert (code, printed.out.splitlines()[0]) == (0, "no differences")
    assert " widened\n" in printed.out
    _, (_, second), _ = find_story()
    code, printed = run(rehash([*rows[:second], *rows[second + 1 :]]))
    assert code == 1
    assert "in its portfolio; 1 are widened" in printed.out
    code, printed = run(rehash(rows)[1:])
    assert (code, "row 1: it does not follow the row before" in printed.out) == (1, True)
    code, printed = run([])
    assert (code, "the file is empty" in printed.err) == (2, True)
    assert VERIFIER.main([str(path)]) == 2
    path.write_text("".join(f"{line}\n" for line in rehash(rows)), encoding="utf-8")
    capsys.readouterr()
    assert VERIFIER.main([str(path)]) == 0
    count = sum(map(is_listed, rows))
    text = f"{count} proposals are of portfolios: verify_portfolios.py recomputes these"
    assert text in capsys.readouterr().out
