"""Reports are sealed, versioned and kept; what is new in one is said, and nothing is made twice."""

import json
from dataclasses import replace

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.records.records import RecordStore
from rollout.data.reports.reports import ReportStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import VersionFirstUsed
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.process.health_checks import run_health_checks
from rollout.features.reports import archive, drafts
from rollout.features.reports.archive import (
    UnknownReportError,
    find_seal_faults,
    format_report,
    load_report,
    load_reports,
    request_report,
)
from rollout.features.reports.builder import (
    STEPS,
    ReportCallbacks,
    ReportOptions,
    create_report,
)
from rollout.features.reports.figures import report_version
from rollout.features.reports.figures.report_version import (
    VOLATILE_SECTIONS,
    UnreadableReportError,
    compare_versions,
    compute_seal,
    compute_table_seal,
)
from rollout.features.reports.pages.json_report import parse_report_facts
from rollout.features.reports.stored_inputs import NothingToReportError
from rollout.features.reviews.requested_reviews import seed_gold_case
from rollout.kernel.errors import NotAllowedError, UnknownRolloutError
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.snapshots import filled_once
from tests.factories import DAY, HOUR, NOON
from tests.features import bear_field as field
from tests.features.review_room import ANA, DAN, MINUTE, Room

WEEK = ReportOptions(since=NOON - DAY, until=NOON + DAY)
CLOSED = NOON + 2 * DAY
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
VIEWER = Caller("vi", role_assignments=(AssignedRole("viewer", "bears"),))


@pytest.fixture
def bears(database):
    keep_ten(database)
    return database


@filled_once
def keep_ten(database):
    """Make a rollout with ten judged cases, one of them a divergence."""
    field.set_up_field(database, NOON - DAY)
    for number in range(10):
        model = "bear" if number == 3 else "none"
        keep(database, f"case-{number}", NOON - DAY + HOUR, model=model)


def keep(database, key, at, *, model="none", person="none", received=None, reviewer="ana"):
    asked = Case(key=key, site="creek", occurred_at=at, window="day"), prediction(key, at, model)
    send(database, *asked, received=received or at)
    decided = verdict(key, at + MINUTE, person, reviewer)
    send(database, decided, received=received or at + HOUR)


def prediction(key, at, model="none"):
    return Prediction(key=key, version="v1", answers={"alarm": model}, at=at, confidence=0.9)


def send(database, *records, received):
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, "bears")
        kept = RecordStore(transaction, stood.rollout).store(records, received_at=received)
        queue_new_cases(transaction, stood, kept, received)


def verdict(key, at, person, reviewer="ana"):
    return Decision(
        key=key,
        reviewer=reviewer,
        answers={"alarm": person},
        claims="blind",
        exposure="blind",
        submitted_at=at,
    )


def make(database, at, name="week", asked=WEEK, **more):
    return create_report(database, "bears", name, asked, at, **more)


def tick(database, at):
    Ticker(database, "bears", "one").tick(at)


def ledger(database):
    with database.begin_read() as transaction:
        return tuple(
            Ledger(transaction, load_rollout_state(transaction, "bears").rollout).list_rows()
        )


def test_a_report_is_sealed_under_the_hash_of_its_text_which_the_ledger_cites(bears):
    made = make(bears, NOON + DAY, caller=Caller("ana", access_head=7))
    (row,) = [row for row in ledger(bears) if row.kind == "ReportSealed"]
    assert row.body["sha256"] == compute_seal(made.report.body)
    assert (row.by, row.access_head, row.revision) == ("ana", 7, made.report.sealed_in)
    assert row.body["report"] == "week"
    body = json.loads(made.report.body)
    assert body["report_version"]["divergences_sha256"] == compute_table_seal(
        body, made.report.divergences
    )
    assert "made_at" not in made.report.body
    with bears.begin_read() as transaction:
        kept = ReportStore(transaction, load_rollout_state(transaction, "bears").rollout).get(
            made.number
        )
    assert kept == made.report


@pytest.mark.slow
def test_the_same_report_made_again_is_the_one_that_is_there(bears):
    first = make(bears, NOON + DAY)
    assert first.is_new
    before = ledger(bears)
    again = make(bears, NOON + DAY)
    assert (again.number, again.is_new) == (first.number, False)
    assert again.report == first.report
    assert ledger(bears) == before
    command = json.loads(first.report.body)["identity"]["command"]
    assert command.startswith("rollout report bears --name week --since "), "else it is another one"


@pytest.mark.slow
@on_sqlite
def test_a_report_is_provisional_until_its_cases_have_closed_then_final(bears):
    tick(bears, NOON + DAY)
    first = make(bears, NOON + DAY)
    assert (first.report.state, first.report.due) == ("provisional", CLOSED)
    tick(bears, CLOSED - HOUR)
    assert make(bears, CLOSED).report.state == "provisional", "the tick has not counted"
    tick(bears, CLOSED)
    last = make(bears, CLOSED)
    assert (last.report.state, last.report.version) == ("final", 2)
    assert not make(bears, CLOSED + 90 * DAY).is_new
    said = parse_report_facts(json.loads(last.report.body)).report_version.changed
    assert ("report_version.state", '"provisional"', '"final"') in {
        (c.path, c.before, c.after) for c in said
    }


@pytest.mark.slow
@on_sqlite
def test_a_late_verdict_makes_a_version_that_says_what_changed(bears):
    tick(bears, CLOSED)
    first = make(bears, CLOSED)
    send(bears, verdict("case-3", CLOSED, "bear", "bo"), received=CLOSED + HOUR)
    made = make(bears, CLOSED + DAY)
    assert (made.report.version, made.report.state) == (2, "final")
    assert made.number != first.number
    changed = {c.path: (c.before, c.after) for c in edition(made).changed}
    assert changed["agreements[v1,alarm].agreement.n"] == ("10", "9")
    assert changed["divergences.count"] == ("1", "0")
    assert not [path for path in changed if path.startswith("evidence")], "units close once"
    assert [e["decided_units"] for e in json.loads(made.report.body)["evidence"]] == [10]
    assert [c.path for c in edition(made).changed] == sorted(changed)


def edition(made):
    return parse_report_facts(json.loads(made.report.body)).report_version


@pytest.mark.slow
@on_sqlite
def test_of_many_changes_the_first_are_listed_and_the_others_counted(bears, monkeypatch):
    make(bears, NOON + DAY)
    monkeypatch.setattr(drafts, "MAX_CHANGES", 3)
    send(bears, verdict("case-3", NOON, "bear", "bo"), received=NOON + HOUR)
    told = edition(make(bears, NOON + DAY))
    assert len(told.changed) == 3
    assert told.more_changed > 0


def test_what_is_said_of_the_moment_of_making_is_no_change():
    state, same = {"state": "final"}, {"model_cost": {"cases": 1}}
    before = {"report_version": {**state, "uncounted_units": 1}, **same}
    after = {"report_version": {**state, "uncounted_units": 0}, **same}
    assert "pending_work" in VOLATILE_SECTIONS
    assert compare_versions({**before, "pending_work": 1}, {**after, "pending_work": 2}) == ()


def test_rows_are_told_apart_by_what_they_are_of():
    def rows(*rates):
        named = zip("ab", rates, strict=False)
        return {
            "report_version": {"state": "final"},
            "rows": [{"site": site, "rate": rate} for site, rate in named],
        }

    (only,) = compare_versions(rows(0.5, 0.25), rows(0.5, 0.75))
    assert (only.path, only.before, only.after) == ("rows[b].rate", "0.25", "0.75")
    gone = compare_versions(rows(0.5, 0.25), rows(0.5))
    assert {(c.path, c.after) for c in gone} == {("rows[b].rate", None), ("rows[b].site", None)}
    alike, other = (
        {"report_version": {"state": "final"}, "rows": [{"site": "a", "n": n} for n in numbers]}
        for numbers in ((1, 2), (1, 3))
    )
    assert [c.path for c in compare_versions(alike, other)] == ["rows[1].n"]


@pytest.mark.slow
def test_whoever_is_overtaken_finds_the_version_that_was_made(bears, monkeypatch):
    """Two replicas make the same report at once: one version is kept, and both return it."""
    real, others = drafts.compute_report_facts, []

    def overtaken(inputs):
        if not others:
            others.append(None)
            others[0] = make(bears, NOON + DAY)
        return real(inputs)

    monkeypatch.setattr(drafts, "compute_report_facts", overtaken)
    mine = make(bears, NOON + DAY)
    assert (mine.number, mine.is_new) == (others[0].number, False)
    assert sum(row.kind == "ReportSealed" for row in ledger(bears)) == 1


@on_sqlite
def test_each_step_is_named_as_it_begins(bears):
    steps = []
    callbacks = ReportCallbacks(on_step=lambda *step: steps.append(step))
    make(bears, NOON + DAY, callbacks=callbacks)
    assert steps == [(name, number, len(STEPS)) for number, name in enumerate(STEPS)]


@pytest.mark.slow
@on_sqlite
def test_what_stands_beside_a_new_version_is_written_with_it_or_neither_is(bears):
    def breaks(_transaction, _made):
        raise RuntimeError

    before = ledger(bears)
    with pytest.raises(RuntimeError):
        make(bears, NOON + DAY, callbacks=ReportCallbacks(on_created=breaks))
    assert ledger(bears) == before
    told = []
    callbacks = ReportCallbacks(on_created=lambda _, one: told.append(one.number))
    made = make(bears, NOON + DAY, callbacks=callbacks)
    assert told == [made.number]
    make(bears, NOON + DAY, callbacks=callbacks)
    assert told == [made.number], "nothing new, nothing beside"


def test_a_sealed_ledger_verifies_and_nothing_derived_differs(bears):
    make(bears, NOON + DAY)
    assert not [
        check
        for check in run_health_checks(bears, rebuilds=True)
        if "bears" in check.title and check.faults
    ]
    assert not rebuild_derived_tables(bears, "bears")


@pytest.mark.slow
@on_sqlite
def test_a_seal_moves_no_cell_and_the_next_tick_goes_on(bears):
    tick(bears, NOON)
    with bears.begin_read() as transaction:
        before = load_rollout_state(transaction, "bears").scope
    make(bears, NOON + DAY)
    with bears.begin_read() as transaction:
        after = load_rollout_state(transaction, "bears").scope
    times = {"at": before.at, "effective_at": before.effective_at}
    assert replace(after, **times, revision=before.revision) == before
    assert after.revision == before.revision + 1
    tick(bears, NOON + DAY + HOUR)


@on_sqlite
@pytest.mark.parametrize(
    ("name", "asked", "fault"),
    [
        ("", WEEK, "name it"),
        ("a\nb", WEEK, "name it"),
        ("x" * 101, WEEK, "name it"),
        ("week", replace(WEEK, view="boss"), "no view boss; there is operator, engineer, auditor"),
        ("week", replace(WEEK, until=NOON + 9 * DAY), "yet to come"),
        ("week", replace(WEEK, since=NOON + DAY), "is not before"),
        ("week", replace(WEEK, since=(NOON - DAY).replace(tzinfo=None)), "has no zone"),
    ],
)
def test_what_no_report_could_be_of_is_refused_and_changes_nothing(bears, name, asked, fault):
    before = ledger(bears)
    with pytest.raises(NothingToReportError, match=fault):
        make(bears, NOON + DAY, name, asked)
    assert ledger(bears) == before


# Reading


@on_sqlite
def test_a_report_is_read_in_every_form(bears):
    made = request_report(bears, VIEWER, "bears", "week", WEEK, NOON + DAY)
    shown = load_report(bears, VIEWER, "bears", made.number, NOON + DAY)
    assert compute_seal(format_report(shown, "json").decode()) == made.report.hash
    assert (
        format_report(shown, "csv").decode().splitlines()[1].startswith("case-3,v1,alarm,creek,day")
    )
    page = format_report(shown, "html").decode()
    assert "PROVISIONAL" in page
    assert 'id="checks"' in page
    assert 'id="checks"' not in format_report(shown, "html", "operator").decode()
    assert "Version 1, PROVISIONAL: " in format_report(shown, "summary").decode()


@on_sqlite
def test_of_a_rollout_without_any_case_a_report_says_that_nothing_is_known(database):
    apply_policy(
        database, field.POLICY, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32)
    )
    made = make(database, NOON + DAY)
    shown = load_report(database, VIEWER, "bears", made.number, NOON + DAY)
    forms = {form: format_report(shown, form).decode() for form in archive.REPORT_FORMATS}
    assert "no data" in forms["html"]
    assert "Nothing was widened" in format_report(shown, "summary").decode()
    assert forms["csv"].count("\n") == 1
    field.append(database, VersionFirstUsed(at=NOON, by="policy", version="v1"))
    assert make(database, NOON + DAY).report.version == 2


@on_sqlite
def test_of_cases_that_nobody_has_judged_a_report_gives_no_figures(database):
    field.set_up_field(database, NOON - DAY)
    case = Case(key="lone", site="creek", occurred_at=NOON, window="day")
    send(database, case, received=NOON)
    send(database, prediction("lone", NOON), received=NOON)
    tick(database, CLOSED)
    made = make(database, CLOSED)
    (figures,) = json.loads(made.report.body)["agreements"]
    assert (figures["agreement"]["n"], figures["agreement"]["rate"]) == (0, None)
    shown = load_report(database, VIEWER, "bears", made.number, CLOSED)
    assert all(format_report(shown, form) for form in archive.REPORT_FORMATS)


@on_sqlite
def test_reports_are_listed_for_who_may_read_every_site(bears):
    made = [make(bears, NOON + DAY, name) for name in ("week", "month")]
    found = load_reports(bears, VIEWER, "bears")
    assert [one.id for one in found] == [made[1].number, made[0].number]
    assert [one.name for one in load_reports(bears, VIEWER, "bears", report_name="week")] == [
        "week"
    ]
    at_creek = Caller("cy", role_assignments=(AssignedRole("viewer", "bears", "creek"),))
    with pytest.raises(NotAllowedError):
        load_reports(bears, at_creek, "bears")
    with pytest.raises(NotAllowedError):
        request_report(bears, at_creek, "bears", "week", WEEK, NOON + DAY)
    with pytest.raises(UnknownRolloutError):
        load_report(bears, Caller("no"), "bears", made[0].number, NOON + DAY)
    with pytest.raises(UnknownReportError, match="has no report 99"):
        load_report(bears, VIEWER, "bears", 99, NOON + DAY)


@on_sqlite
def test_a_body_that_an_earlier_program_made_is_read_as_json_alone(bears):
    made = make(bears, NOON + DAY)
    shown = load_report(bears, VIEWER, "bears", made.number, NOON + DAY)
    older = {name: one for name, one in shown.body.items() if name != "model_cost"}
    shown = replace(shown, body=older, sealed=older)
    assert json.loads(format_report(shown, "json")) == older
    with pytest.raises(
        UnreadableReportError, match="made it in another form; read it as JSON or CSV"
    ):
        format_report(shown, "html")


@on_sqlite
def test_a_report_of_a_later_program_stops_neither_the_next_version_nor_the_check(
    bears, monkeypatch
):
    made = make(bears, NOON + DAY)
    monkeypatch.setattr(report_version, "SCHEMA", "rollout-report/0")  # another program's
    with bears.begin_read() as transaction:
        faults = list(find_seal_faults(transaction, Rollouts(transaction).find("bears")))
    unknown = "its form 'rollout-report/1' is not rollout-report/0"
    assert faults == [f"the divergences of report {made.number} can't be checked: {unknown}"]
    again = make(bears, NOON + DAY)
    assert (again.report.version, again.is_new) == (2, True)
    assert json.loads(again.report.body)["report_version"]["changed"] == []


@on_sqlite
def test_a_reader_has_seen_the_cases_that_a_report_lists(database):
    room = Room(database)
    room.arrive("case-1", label="fox").done(ANA, "bear")
    room.later(25 * HOUR)
    made = create_report(database, "bears", "week", ReportOptions(), room.at)
    both = Caller(
        "eve",
        role_assignments=(AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears")),
    )
    assert "case-1" in load_report(database, both, "bears", made.number, room.at).divergences
    with database.begin_read() as transaction:
        told = kept_reports_shown(transaction, room, "eve")
    assert told == {("prediction", "report"), ("decisions", "report")}


def kept_reports_shown(transaction, room, who):
    numbers = ExternalKeys(transaction, room.stood.rollout).find_ids(["case-1"])
    (found,) = (
        ExposureStore(transaction, room.stood.rollout)
        .list_for_reviewer(who, set(numbers.values()))
        .values()
    )
    return set(found)


@on_sqlite
def test_a_case_that_was_put_before_its_reader_meanwhile_is_left_out(database):
    """A known case is judged blind by people who could read in an older report what is right."""
    room = Room(database)
    room.arrive("case-1", "case-2", label="fox").done(ANA, "bear")
    room.done(ANA, "bear")
    room.later(25 * HOUR)
    made = create_report(database, "bears", "week", ReportOptions(), room.at)
    seed_gold_case(
        database, DAN, room.stood, "case-1", {"alarm": "bear"}, reviewer_count=1, at=room.at
    )
    both = Caller(
        "eve",
        role_assignments=(AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears")),
    )
    hers = load_report(database, both, "bears", made.number, room.at)
    assert hers.withheld_cases == 1
    for form in archive.REPORT_FORMATS:
        text = format_report(hers, form).decode()
        assert "case-2" in text
        assert "case-1" not in text
    everybody = load_report(database, VIEWER, "bears", made.number, room.at)
    assert "case-1" in everybody.divergences
