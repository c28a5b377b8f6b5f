"""What a cell says: a sentence for each state that the service knows, the tag that comes first."""

from dataclasses import replace
from datetime import date, timedelta
from types import SimpleNamespace

import pytest
from markupsafe import Markup

from api.cells.cell_gates import describe_cell
from api.web_kit.figures import format_bound
from rollout.engine.words.formatting import format_share_bound
from rollout.features.cells.cell_table import CellSummary, find_recent_changes
from rollout.features.cells.cells import build_cell_status
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.inputs.cell_facts import ConditionFacts, GateFacts
from rollout.kernel.calendar.instants import Cell, Site
from rollout.kernel.facts import DAYS, UNITS, UnmetRequirement
from rollout.kernel.policy.policy import Freeze, Limit, Waves, Where
from rollout.kernel.words import say_requirement
from tests.factories import (
    AUTONOMOUS,
    BO,
    CHANGE,
    CREEK,
    DAN,
    DAY,
    HOUR,
    LAKE,
    LATENCY,
    MET,
    QUALITY,
    SUPERVISED,
    TICK,
    TURNED,
    UNAUDITED,
    RejectProposal,
    RolloutDriver,
    StopCells,
    alarm,
    autonomous,
    gates,
    policy,
    supervised,
)

SHARE = {"condition": "agreement at least 95 %", "name": "agreement", "unit": "",
         "measure": "agreement", "label": None,
         "lever": None, "threshold": 0.95, "at_least": True, "log_e": 0.0, "log_e_needed": 3.0,
         "met": False, "probability_below": 0.1}  # fmt: skip


def share(agreed, n, bound, **more):
    """Return agreement against a line of 95 %."""
    rest = dict.fromkeys(("records_needed_min", "records_needed_p50", "records_needed_p90"))
    counts = {"n": n, "counts": (agreed, n - agreed), "estimate": agreed / n if n else None}
    return ConditionFacts(**{**SHARE, **rest, **counts, "bound": bound, **more})


def evidence(version="v1", cell=CREEK, *, conditions=(), lacks=(), to="supervised", **more):
    """Return evidence whose gate asks for some conditions."""
    texts = tuple(map(say_requirement, lacks))
    gate = GateFacts(
        to, 0.05, not conditions, texts, tuple(lacks), ("operator",), tuple(conditions)
    )
    given = {"closed_units": 120, "decided_units": 118, "undecided_units": 2}
    given |= {"decided_units_per_day": 14.0}
    of = {"site": cell.site, "window": cell.window, "version": version, "stage": "shadow"}
    stands = {"acting": False, "since": None, "attempt": 1, "attempt_since": None}
    beside = {"gate": gate, "next_step": "", "versions": 1, "attempts": 1, "path": ()}
    return EvidenceFacts(**{**of, **stands, **beside, **given, **more})


def words(rollout, *facts, cell=CREEK, case=timedelta(0)):
    """Return what a cell says, with times as `<instant>`."""
    stood = SimpleNamespace(scope=rollout.scope, policy=rollout.policy)
    now = build_cell_status(stood, cell, (), rollout.at)
    last = None if case is None else rollout.at - case
    row = CellSummary(cell, now, facts, (), last)
    lately = find_recent_changes(rollout.events, rollout.scope, rollout.at)
    return describe_cell(rollout.policy, rollout.scope, row, lately, rollout.at, told)


def told(at):
    return Markup("&lt;{}&gt;").format(at.isoformat(timespec="minutes"))


def says(rollout, *facts, **how):
    """Return the tag and the sentences as plain text."""
    found = words(rollout, *facts, **how)
    return found.tag, [saying.text.unescape() for saying in found.sentences]


def test_an_eligible_cell_says_for_whom_and_how_long_it_waits():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.approve(proposal, BO)
    tag, lines = says(rollout, evidence())
    assert tag == "Eligible"
    assert lines[0] == (
        f"Every condition for supervised is met since {told(proposal.raised_at).unescape()}. "
        f"Needs 1 more approval until {told(proposal.expires_at).unescape()}."
    )


def test_an_eligible_cell_below_the_threshold_now_says_when_it_was_met():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    tag, lines = says(rollout, evidence(conditions=[share(838, 884, 0.918)]))
    assert tag == "Eligible"
    assert lines[0] == (
        f"Every condition for supervised was met when {proposal.id} was raised on"
        f" {told(proposal.raised_at).unescape()}; agreement no longer meets the threshold."
        f" Needs 2 more approvals until {told(proposal.expires_at).unescape()}."
    )


def test_an_approved_widening_waits_for_the_next_tick():
    rollout = RolloutDriver()
    rollout.approved()
    tag, lines = says(rollout)
    assert tag == "Approved"
    assert lines[0].startswith("Approved. Takes effect with the next tick, <2027-06-01T12:30")


def test_an_approved_widening_waits_for_a_resume():
    rollout = RolloutDriver()
    rollout.approved()
    rollout.stop()
    _, lines = says(rollout)
    assert "Approved. It waits for the resume of the stop that holds the cell." in lines
    assert not any("next tick" in line for line in lines)


def test_an_approved_widening_waits_for_the_end_of_an_alarm():
    rollout = supervised()
    rollout.approved()
    rollout.tick({CREEK: alarm(CHANGE)})
    _, lines = says(rollout)
    assert any("It waits for the end of a guard's alarm there." in line for line in lines)


def test_an_approved_widening_says_when_the_freeze_ends_and_why_it_is():
    frozen = policy(freezes=(Freeze("Jun 01-02", "Juneteenth"),))
    rollout = RolloutDriver(frozen)
    rollout.approved()
    tag, lines = says(rollout)
    assert tag == "Held: freeze"
    assert (
        lines[0]
        == "Approved. Takes effect after the freeze, <2027-06-03T00:00+00:00> (Juneteenth)."
    )


def test_an_approved_widening_says_after_which_cell_it_settles():
    rollout = RolloutDriver(policy(waves=Waves("supervised", at_once=1, settle=3 * DAY)))
    rollout.widen(CREEK)
    widened = rollout.at
    rollout.approved(Cell("creek", "night"))
    tag, lines = says(rollout, cell=Cell("creek", "night"))
    assert tag == "Held: settling"
    when = told(widened + 3 * DAY).unescape()
    assert lines[0] == f"Approved. 1 cell settles at once at most: after creek · day, {when}."


def waved():
    return policy(
        waves=Waves("supervised", hold=7 * DAY),
        sites=(Site("creek", "UTC"), Site("lake", "UTC", wave=2)),
    )


def test_a_wave_that_can_not_be_dated_yet_is_told_without_a_date():
    _, lines = says(RolloutDriver(waved()), evidence(cell=LAKE), cell=LAKE)
    assert "Waits until creek has been supervised for 7 d in the same window." in lines


def test_a_wave_says_from_when_it_opens_once_the_one_before_holds_its_stage():
    rollout = RolloutDriver(waved())
    rollout.widen(CREEK)
    tag, lines = says(rollout.after(DAY), evidence(cell=LAKE), cell=LAKE)
    opens = told(rollout.at + 6 * DAY).unescape()
    assert tag == "Held: wave"
    assert lines == [
        f"Waits until creek has been supervised for 7 d in the same window: from {opens}."
    ]


def test_too_few_says_how_many_more_and_how_long_that_takes():
    tag, lines = says(
        RolloutDriver(),
        evidence(lacks=[UnmetRequirement(UNITS, 159, 200), UnmetRequirement(DAYS, 2, 7)]),
    )
    assert tag == "Held: too few"
    assert lines == [
        "Needs 41 more blind decisions (159 of 200), about 3 days at 14 a day.",
        "Needs 5 more days at this stage (2 of 7).",
    ]


def test_without_a_pace_no_date_is_made_up():
    lacking = evidence(lacks=[UnmetRequirement(UNITS, 159, 200)], decided_units_per_day=None)
    _, (line,) = says(RolloutDriver(), lacking)
    assert line == "Needs 41 more blind decisions (159 of 200)."


def test_below_the_line_says_the_bound_and_the_ways_on():
    needed = {"records_needed_min": 41, "records_needed_p50": 76, "records_needed_p90": 234}
    facts = evidence(conditions=[share(300, 310, 0.94, **needed)])
    tag, (line,) = says(RolloutDriver(), facts)
    assert tag == "Held: below threshold"
    assert line.replace("\N{NO-BREAK SPACE}", " ") == (
        "Agreement is at least 94.0 %; the threshold is 95 %. Needs at least 41 more that agree; "
        "probably after 76 more blind decisions (with 90 % chance within 234)."
    )


def test_not_on_course_gives_no_number_of_cases_that_would_do():
    below = share(838, 939, 0.856, probability_below=0.99, records_needed_min=400)
    facts = evidence(conditions=[below])
    tag, (line,) = says(RolloutDriver(), facts)
    assert tag == "Held: off course"
    assert line.replace("\N{NO-BREAK SPACE}", " ") == (
        "At the current agreement (89.2 %), the threshold of 95 % will probably never be met. "
        "Look at the divergences."
    )


def test_what_more_cases_can_mend_stands_before_what_they_cannot():
    never = share(838, 939, 0.856, probability_below=0.99, name="recall of bear")
    facts = evidence(conditions=[never, share(300, 310, 0.94, records_needed_min=41)])
    tag, lines = says(RolloutDriver(), facts)
    assert tag == "Held: below threshold"
    assert [line.split()[0] for line in lines] == ["Agreement", "At"]
    assert lines[1].startswith("At the current recall of bear (89.2")


def test_early_and_right_so_far_is_no_bad_course():
    facts = evidence(conditions=[share(12, 12, 0.7, probability_below=0.6, records_needed_min=62)])
    assert says(RolloutDriver(), facts)[0] == "Held: below threshold"


def test_missing_verdicts_ask_for_reviewers():
    tag, (line,) = says(RolloutDriver(), evidence(closed_units=120, undecided_units=12))
    assert tag == "Held: missing decisions"
    assert "12 of 120 cases are missing (10.0" in line
    assert line.endswith("undecided, or not known before.")


def test_a_stopped_cell_says_who_why_and_what_a_resume_takes():
    rollout = supervised()
    rollout.do(StopCells(at=rollout.at, by=BO, cells=(CREEK,), reason="<b>beards</b>"))
    found = words(rollout, evidence())
    assert (found.kind, found.tag) == ("stopped", "Stopped")
    assert "“&lt;b&gt;beards&lt;/b&gt;”. Resuming needs 2 approvals." in found.sentences[0].text
    rollout.ask_resume()
    assert "needs 2 more approvals" in words(rollout, evidence()).sentences[0].text


def test_a_stop_without_a_reason_says_so():
    rollout = supervised()
    rollout.stop(drill=True)
    _, lines = says(rollout)
    assert lines[0].startswith("Stopped by bo (a drill), ")
    assert ": no reason given. " in lines[0]


def test_a_suspended_cell_says_since_when_why_and_how_it_comes_back():
    rollout = supervised()
    rollout.tick({CREEK: alarm(LATENCY)})
    since = rollout.at
    tag, lines = says(rollout.after(HOUR))
    assert tag == "Suspended"
    assert lines[0].startswith(
        f"Humans decide since {told(since).unescape()}: latency_p95 at most 2 s"
    )
    assert lines[0].endswith("Returns automatically after 30 min within the threshold.")


def test_a_narrowed_cell_says_so_for_seven_days():
    rollout = autonomous()
    rollout.tick({CREEK: alarm(QUALITY)})
    tag, lines = says(rollout, evidence())
    assert tag == "Narrowed 1 Jun"
    assert lines[0].startswith("Narrowed from autonomous to supervised on <2027-06-01")
    assert says(rollout.after(8 * DAY), evidence())[0] != "Narrowed 1 Jun"


def test_who_narrowed_a_cell_is_told_with_their_reason():
    rollout = supervised()
    rollout.narrow()
    assert "by bo: no reason given" in says(rollout)[1][0]


def test_what_was_widened_again_is_narrowed_no_more():
    rollout = autonomous()
    rollout.tick({CREEK: alarm(QUALITY)})
    rollout.widen()
    assert says(rollout)[0] == ""


def test_a_lapsing_grant_says_when_and_how_far_its_renewal_is():
    rollout = supervised(policy(stages=(replace(SUPERVISED, lasts=10 * DAY), AUTONOMOUS)))
    ends = rollout.scope.get_cell_state(CREEK, "v1").grants[0].until
    rollout.after(9 * DAY)
    assert "isn’t met on this grant’s evidence" in says(rollout)[1][0]
    rollout.tick({CREEK: MET})
    rollout.approve(rollout.open("renewal"), BO)
    tag, lines = says(rollout)
    assert tag == "Lapsing"
    left = "23 h 45 min"
    assert lines[0] == (
        f"Lapses to shadow in {left}, {told(ends).unescape()}, unless renewed. "
        "The renewal needs 1 more approval."
    )


def test_a_lapsed_grant_says_that_nothing_failed_before_any_tick_noted_it():
    rollout = supervised(policy(stages=(replace(SUPERVISED, lasts=10 * DAY), AUTONOMOUS)))
    tag, lines = says(rollout.after(10 * DAY))
    assert tag == "Lapsed"
    assert lines[0].endswith("Shadow since then. It was not renewed; nothing failed.")
    rollout.tick()
    assert says(rollout)[0] == "Lapsed"
    assert says(rollout.after(8 * DAY))[0] != "Lapsed"


@pytest.mark.parametrize(
    ("guard", "tag"), [(CHANGE, "Reported"), (replace(UNAUDITED, then="report"), "Unaudited")]
)
def test_a_guard_that_only_reports_is_told_with_its_line(guard, tag):
    rollout = supervised(policy(guards=(QUALITY, guard)))
    rollout.tick({CREEK: alarm(guard)})
    found, lines = says(rollout)
    assert found == tag
    assert "only reports; nothing is narrowed" in lines[0]


def test_a_ceiling_is_told_where_the_limit_ends_the_way():
    limited = policy(limits=(Limit(never_above="supervised"),))
    tag, lines = says(supervised(limited))
    assert tag == "At its ceiling"
    assert lines == ["The policy allows at most supervised here by day."]


def test_a_trial_says_when_it_ends_and_when_it_has_ended():
    trial = policy(limits=(Limit(ends=date(2027, 6, 10)),))
    rollout = supervised(trial)
    ends = "<2027-06-11T00:00+00:00>"
    assert f"The trial here ends {ends}. Then humans decide everything." in says(rollout)[1]
    tag, lines = says(rollout.after(20 * DAY))
    assert f"The trial here ended {ends}. The policy allows at most shadow." in lines
    assert tag == "At its ceiling"


def test_a_rejection_holds_for_its_quiet_time():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.do(RejectProposal(at=rollout.at, by=DAN, proposal=proposal.id, reason="not yet"))
    tag, lines = says(rollout, evidence())
    assert tag == "Held: rejected"
    assert lines[0].startswith("A proposal was rejected. The next one is raised after <2027-06-08")


def test_silence_is_told_from_what_was_counted():
    rollout = RolloutDriver(policy(evidence=replace(policy().evidence, grace=HOUR)))
    assert says(rollout, case=24 * HOUR)[0] == ""
    tag, lines = says(rollout, case=26 * HOUR)
    assert tag == "No data"
    assert lines[0].startswith("No case from here was counted for 1 d 2 h; ")
    assert lines[0].endswith("Without data nothing widens.")
    assert says(rollout, case=None)[0] == "No data"


def test_the_tag_is_the_worst_and_every_sentence_stays():
    rollout = autonomous()
    rollout.tick({CREEK: alarm(QUALITY)})
    rollout.stop()
    tag, lines = says(rollout, evidence(lacks=[UnmetRequirement(DAYS, 1, 7)]))
    assert tag == "Stopped"
    starts = [line.split()[0] for line in lines]
    assert starts == ["Stopped", "Narrowed", "Needs"]


def test_a_takeover_names_both_versions():
    rollout = supervised(policy(gates=gates()), "v1", "v2")
    rollout.tick(v2=MET)
    _, lines = says(rollout, evidence("v1"), evidence("v2"))
    assert lines[0].startswith("v2 meets every condition for supervised in place of v1 since ")


def test_evidence_that_turned_leaves_no_eligible_cell():
    rollout = RolloutDriver()
    rollout.raised()
    rollout.tick({CREEK: TURNED})
    assert says(rollout, evidence(conditions=[share(80, 120, 0.55, probability_below=1.0)]))[0] == (
        "Held: off course"
    )


@pytest.mark.parametrize(
    ("bound", "line", "text"),
    [
        (0.9599, 0.95, "95.9"),
        (0.94999, 0.95, "94.9"),
        (0.9504, 0.95, "95.04"),
        (1.0, 0.95, "100.0"),
    ],
)
def test_a_bound_is_rounded_down_and_never_reads_as_its_line(bound, line, text):
    assert format_share_bound(bound, line) == f"{text}\N{NO-BREAK SPACE}%"


def test_an_upper_bound_of_a_cost_is_rounded_up():
    assert format_bound("cost", 0.19861, 0.2, at_least=False) == "at most 0.199"
    assert format_bound("cost", 0.19961, 0.2, at_least=False) == "at most 0.1997"


def test_a_where_that_fits_only_nights_leaves_days_free():
    nights = policy(limits=(Limit(never_above="supervised", where=Where((), ("night",))),))
    assert says(supervised(nights))[0] == ""


def test_ticks_do_not_change_what_is_said_of_the_past():
    rollout = supervised()
    before = rollout.scope, rollout.at, list(rollout.events)
    rollout.stop()
    scope, at, events = before
    past = SimpleNamespace(scope=scope, policy=rollout.policy, at=at + TICK / 15, events=events)
    assert says(past)[0] == ""
    assert says(rollout)[0] == "Stopped"
