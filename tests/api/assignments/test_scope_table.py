"""The scope's table over HTTP: small, only for who asks for it, and never without a lease."""

import json
from datetime import timedelta

import pytest

from api.cells.routes import ScopeSnapshot, build_table_scope
from rollout.engine.decide.scope import Grant, Scope, Version, build_initial_state, set_cell_state
from rollout.features.assignments.assignments import Snapshot
from rollout.kernel.calendar.instants import Site, Window
from tests.api.assignments.autonomous_bears import bears, clocks_agree
from tests.api.test_shell import problem_of
from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR, NOON, policy
from tests.features import bear_field as field

URL = "/v1/rollouts/bears/scope"
MAX_BYTES = 100_000
ODD = timedelta(microseconds=123_457)  # the service's times are no whole seconds
WINDOWS = (
    Window("dusk-and-dawn", "sunset-(sunset+01:00),(sunrise-01:00)-sunrise"),
    Window("day", "sunrise-sunset"),
    Window("night"),
)

__all__ = ["bears", "clocks_agree"]


def read(client, by="ingest", **asked):
    answer = client.by(by).get(URL, params={"form": "table-1", **asked})
    assert answer.status_code == 200, answer.text
    return ScopeSnapshot.model_validate_json(answer.content, extra="forbid")


def build_large_scope():
    """Return the body of 100 sites with three windows that follow each one's sun for 48 hours."""
    sites = tuple(
        Site(f"site-{n:03}", "Europe/Vienna", coordinates=(40 + n / 5, n / 4)) for n in range(100)
    )
    rules = policy(sites=sites, windows=WINDOWS, gates=(), guards=(), lease=DAY)
    cells, holders = {}, {}
    for number, cell in enumerate(rules.cells):
        since = NOON - DAY + number * ODD
        grants = tuple(
            Grant(stage.id, since, since + stage.lasts, "", since) for stage in rules.stages
        )
        state = build_initial_state(NOON, ())
        state = type(state)(state.attempt_since, state.changed_at, grants=grants)
        set_cell_state(cells, holders, cell, "detector-2027-05-01", state)
    version = Version("detector-2027-05-01", NOON)
    scope = Scope(versions={version.id: version}, cells=cells, at=NOON, _holders=holders)
    leases = dict.fromkeys(rules.sites_by_id, DAY)
    permits = dict.fromkeys(leases, f"1.local.41.{NOON.timestamp():.0f}000000.43200.{'5e' * 32}")
    snapshot = Snapshot(
        rollout="bear-alarm",
        revision=41,
        hash="9f" * 32,
        policy=rules,
        policy_text="rollout: bear-alarm",
        sites=tuple(leases),
        scope=scope,
        salt=bytes(32),
        leases=leases,
        permits=permits,
        head_code=f"1.1.{'5e' * 32}",
        issued_at=NOON + HOUR + ODD,
    )
    return build_table_scope(snapshot).model_dump_json()


@pytest.mark.slow
def test_100_sites_with_three_windows_for_48_hours_fit_in_100_kb():
    body = build_large_scope()
    table = json.loads(body)["table"]
    assert len(table["sites"]) == 100
    for site in table["sites"]:
        assert site["until"] >= 48 * 3_600
        assert len(site["cells"]) == 3
        assert all(cell["spans"] for cell in site["cells"])
        assert len(site["open"]) >= 9
    assert len(body.encode()) <= MAX_BYTES


def test_a_table_stands_in_place_of_the_policy_and_what_it_rules(client, bears):
    plain = client.by("ingest").get(URL).json()
    body = read(client)
    assert (body.policy.text, body.versions, body.cells, body.stops) == ("", [], [], [])
    assert [site.site for site in body.table.sites] == ["creek", "lake", "dale"]
    head = ("rollout", "revision", "hash", "era", "head_code", "salt", "scope_at", "sites")
    shared = json.loads(body.model_dump_json())
    assert {name: shared[name] for name in head} == {name: plain[name] for name in head}
    assert plain["table"] is None
    assert plain["policy"]["text"] == field.POLICY


def test_a_site_is_covered_until_a_day_after_its_lease(client, bears):
    untils = {site.site: site.until for site in read(client).table.sites}
    assert untils == {"creek": 86_461, "lake": 86_401 + 43_200, "dale": 86_461}


@on_sqlite
def test_without_a_lease_there_is_no_table(client, bears):
    assert read(client, by="viewer").table is None
    assert read(client, at=(NOON - HOUR).isoformat()).table is None
    assert [site.site for site in read(client, site="lake").table.sites] == ["lake"]


@on_sqlite
def test_another_form_is_refused_and_each_form_has_its_own_tag(client, bears):
    asked = client.by("ingest").get(URL, params={"form": "table-2"})
    assert problem_of(asked) == (422, "malformed")
    tag = client.get(URL).headers["etag"]
    answer = client.get(URL, params={"form": "table-1"}, headers={"If-None-Match": tag})
    assert answer.status_code == 200


@on_sqlite
def test_a_stop_is_the_reason_in_the_next_table(client, database, clock, bears):
    field.stop(database, ("creek", "day"))
    clock.advance(timedelta(seconds=1))
    table = read(client, site="creek").table
    (cell,) = [c for c in table.sites[0].cells if table.windows[c.window].id == "day"]
    assert (cell.version, cell.spans) == ("", [])
    assert table.answers[cell.shadow].reason.startswith("stopped: S-")
