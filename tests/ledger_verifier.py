"""The auditor's verifier, loaded from the page's folder, and compared with the product.

`compare_histories` reads the same lines with both, and compares after every row what holds.
"""

import importlib.util
import sys

from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope, build_initial_state, compute_stage_level
from rollout.engine.ledger.ledger import build_ledger, parse_event, verify_lines
from rollout.kernel.calendar.instants import to_micros
from tests.docs.pages import ROOT
from tests.factories import SALTS

FILE = ROOT / "docs/how-to/verify_ledger.py"


def load_page_program(file):
    """Return a program that stands beside the pages of docs, as a module of its name."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


VERIFIER = load_page_program(FILE)


def read_lines(lines):
    """Return the rows that the verifier reads."""
    return list(VERIFIER.read_rows(f"{line}\n".encode() for line in lines))


def compare_histories(lines, policies, *, allowed=True):
    """Compare both readings of a ledger after every row; return the verifier's state.

    Args:
        policies: by hash. While none of them is in force, only an upper bound is compared.
        allowed: whether the verifier must find each row allowed.
    """
    state, scope, policy = VERIFIER.RecomputedState([]), Scope(), None
    events = map(parse_event, verify_lines(lines))
    for row, event in zip(read_lines(lines), events, strict=True):
        state.apply_row(row)
        scope = apply_event(scope, event)
        policy = policies.get(scope.policy_hash)
        compare_states(state, scope, policy)
    assert not (allowed and state.differences), state.differences
    return state


def compare_states(state, scope, policy):
    """Compare what both say of versions, cells, stops, eras, and stages around each grant's end."""
    at = to_micros(scope.at)
    assert (state.revision, state.at, state.era) == (scope.revision, at, scope.era)
    assert (state.policy_number, state.policy_hash) == (scope.policy_number, scope.policy_hash)
    versions = {name: to_micros(version.first_seen) for name, version in scope.versions.items()}
    assert state.starts == versions
    assert state.retired == {name for name, version in scope.versions.items() if version.retired}
    assert {name: _places(stop) for name, stop in state.stops.items()} == {
        name: {(cell.site, cell.window) for cell in stop.cells}
        for name, stop in scope.stops.items()
    }
    assert {name for name, p in state.proposals.items() if p.is_open} == set(scope.proposals)
    product = {
        (cell.site, cell.window, name): s
        for (cell, name), s in scope.cells.items()
        if not _has_only_begun(scope, name, s)
    }
    assert set(product) <= set(state.cells), f"row {state.revision}"
    product = {(cell.site, cell.window, name): s for (cell, name), s in scope.cells.items()}
    for key, cell in state.cells.items():
        assert _plain(cell) == _plain_product(product[key]), (state.revision, key)
    years = {
        (c.site, c.window): (y.year, y.count, y.releases) for c, y in scope.attempt_years.items()
    }
    counts = {name: (year, *rest) for name, (year, _, *rest) in state.years.items()}
    assert counts == years, f"row {state.revision}"
    for cell, version in scope.cells if policy else ():
        _compare_stages(state, scope, policy, cell, version)


def _has_only_begun(scope, version, state):
    """Return whether nothing but the start of its attempt happened to a version in a cell.

    It changes no stage, so the verifier has nothing to say of it.
    """
    initial = build_initial_state(scope.versions[version].first_seen)
    return state.has_begun and _plain_product(state) == _plain_product(initial)


def _compare_stages(state, scope, policy, cell, version):
    key, ends = (cell.site, cell.window, version), scope.cells[cell, version].grants
    for at in {scope.at, *(grant.until for grant in ends)}:
        for offset in (-1, 0):
            micros = to_micros(at) + offset
            name = state.find_stage(*key, micros)
            instant = VERIFIER.EPOCH + VERIFIER.timedelta(microseconds=micros)
            level = compute_stage_level(scope, policy, cell, version, instant)
            ceiling = policy.compute_ceiling(cell, max(instant, scope.at))
            assert level == min(policy.stage_ids.index(name), ceiling), (state.revision, key)


def _places(stop):
    return {(cell["site"], cell["window"]) for cell in stop["cells"]}


def _plain(cell):
    grants = [(g.stage, g.since, g.until, g.proposal) for g in cell.grants]
    return (cell.attempt, cell.attempt_since, grants, cell.suspended_by, cell.of_year != "")


def _plain_product(state):
    grants = [(g.stage, to_micros(g.since), to_micros(g.until), g.proposal) for g in state.grants]
    attempt = (state.attempt, to_micros(state.attempt_since))
    return (*attempt, grants, set(state.suspended_by), state.has_begun)


def write_ledger(rollout, events):
    """Return the lines of a ledger."""
    return [row.format() for row in build_ledger(rollout, events, SALTS)]


def rehash(contents):
    """Return the lines of a ledger whose rows were changed and hashed anew from the first on."""
    rows = [{**content, "revision": number} for number, content in enumerate(contents, start=1)]
    hashes = [""]
    for row in rows:
        row.pop("hash", None)
        texts, row["previous"] = row.pop("texts", None), hashes[-1]
        text = f"rollout-ledger-1\n{VERIFIER.format_canonical(row)}"
        hashes.append(VERIFIER.sha256(text.encode()).hexdigest())
        row["hash"] = hashes[-1]
        if texts:
            row["texts"] = texts
    return [VERIFIER.format_canonical(row) for row in rows]
