"""What a report says of agreement beyond the bare share: ceiling, anchoring, truth, draws."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from rollout.engine.records.records import BaselineCount
from rollout.features.reports.figures.agreement import compute_agreements
from rollout.features.reports.figures.baseline_change import (
    ACTUAL,
    HUMANS,
    compute_baseline_changes,
)
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.holdout import compute_holdout_actions
from rollout.features.reports.figures.oversight import build_sampling_frame, compute_audits
from rollout.features.reports.figures.reviewer_agreement import compute_reviewer_agreement
from rollout.features.reports.inputs.inputs import ACTION_SCHEMA, assign_deciders
from rollout.features.reports.inputs.pairs import build_assisted_pairs, build_pairs
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.intervals import clopper_pearson

pytestmark = pytest.mark.slow

FIVE = timedelta(minutes=5)
TWO_LEVERS = """
rollout: two
timezone: UTC
levers:
  - {id: alarm, labels: [bear, no-bear]}
  - id: heat
    number: {in: C, from: 0, to: 40, tolerance: 1}
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
HEAT = """  - id: heat
    number: {in: C, from: 0, to: 40, tolerance: 1}
"""
ONE_LEVER = TWO_LEVERS.replace(HEAT, "")
HELD = """
rollout: held-out
timezone: UTC
levers: [{id: alarm, labels: [bear, no-bear], actions: {bear: sound, no-bear: nothing}}]
sites: [creek]
evidence: {unit: case, outside: unknown, grace: 1h}
stages: [{id: autonomous, blind: 40%, audit: 30%}]
gates:
  - {to: autonomous, require: [{measure: agreement, at_least: 60%}], minimum: {units: 40, days: 1}}
guards: [{measure: agreement, at_least: 30%, false_alarm_every: 100000}]
tick: 1h
"""


def often(case, count, prefix="c", start=0, **said):
    first = case("x").at
    return [case(f"{prefix}{n}", first + n * FIVE, **said) for n in range(start, start + count)]


# Model against people


def test_labels_are_those_of_scikit_learn(replay_of, case):
    generator = np.random.default_rng(1)
    human = generator.choice(["bear", "no-bear"], 300, p=[0.3, 0.7])
    model = np.where(generator.random(300) < 0.85, human, "bear")
    cases = [
        case(f"c{n}", case("x").at + n * FIVE, human=str(h), model={"v1": str(m)})
        for n, (h, m) in enumerate(zip(human, model, strict=True))
    ]
    (figures,) = compute_report_facts(replay_of(cases)).agreements
    labels = list(figures.label_matrix.labels)
    theirs = confusion_matrix(human, model, labels=labels)
    assert np.array_equal(figures.label_matrix.table, theirs)
    precision, recall, _, support = precision_recall_fscore_support(human, model, labels=labels)
    for row in figures.labels:
        place = labels.index(row.label)
        assert row.precision.rate == pytest.approx(precision[place])
        assert row.recall.rate == pytest.approx(recall[place])
        assert row.human == support[place]


def test_missing_verdicts_bound_recall_and_precision_of_each_label(replay_of, case):
    """TP 4, FN 2, FP 1; without a decision 3 of the model's bears and 5 of its others."""
    cases = [
        *often(case, 4, "tp", human="bear", model={"v1": "bear"}),
        *often(case, 2, "fn", human="bear", model={"v1": "no-bear"}),
        *often(case, 1, "fp", human="no-bear", model={"v1": "bear"}),
        *often(case, 3, "mp", model={"v1": "bear"}),
        *often(case, 5, "mn", model={"v1": "no-bear"}),
    ]
    (figures,) = compute_report_facts(replay_of(cases)).agreements
    bear = next(row for row in figures.labels if row.label == "bear")
    assert bear.recall_bounds == (
        clopper_pearson(4, 4 + 2 + 5)[0],
        clopper_pearson(4 + 3, 4 + 2 + 3)[1],
    )
    assert bear.precision_bounds == (
        clopper_pearson(4, 4 + 1 + 3)[0],
        clopper_pearson(4 + 3, 4 + 1 + 3)[1],
    )


def test_alpha_stands_beside_kappa_and_not_for_numbers(replay_of, case):
    cases = often(case, 30, human="bear", model={"v1": "bear"})
    cases += often(case, 30, "n", human="no-bear", model={"v1": "no-bear"})
    cases += often(case, 8, "w", human="bear", model={"v1": "no-bear"})
    (figures,) = compute_report_facts(replay_of(cases)).agreements
    assert figures.alpha.value == pytest.approx(figures.kappa.value, abs=0.01)
    assert figures.alpha.n == 68
    assert "bootstrap" in figures.alpha.method


def two_levers(replay_of, case):
    """Return inputs with a lever of labels and one of numbers, two people on each case."""
    inputs = replay_of(
        often(case, 40, human=[("ana", "bear"), ("bo", "bear")], model={"v1": "bear"}),
        parse_policy(ONE_LEVER),
    )
    n = pl.int_range(pl.len())
    said = inputs.records.decisions.with_columns(
        pl.when(pl.col("seat") == 1).then(20 + n % 7).otherwise(20.5 + n % 7 + (n % 5 == 0) * 3)
        .cast(pl.String).alias("value:heat"),
        exposure=pl.when(pl.col("case_key") < "c2").then(pl.lit("assisted"))
        .otherwise(pl.lit("blind")),
    )  # fmt: skip
    model = inputs.records.predictions.with_columns(
        (20.4 + n % 7).cast(pl.String).alias("value:heat")
    )
    nothing = pl.lit(None, pl.String).alias("value:heat")
    records = replace(
        inputs.records,
        decisions=said,
        predictions=model,
        outcomes=inputs.records.outcomes.with_columns(nothing),
    )
    return replace(inputs, records=records, policy=parse_policy(TWO_LEVERS))


def test_assisted_numbers_agree_within_their_tolerance(replay_of, case):
    inputs = two_levers(replay_of, case)
    seen = build_assisted_pairs(inputs.records, inputs.case_facts, inputs.policy)
    by_lever = {lever: part for (lever,), part in seen.partition_by("lever", as_dict=True).items()}
    assert set(by_lever) == {"alarm", "heat", "*"}
    heat = by_lever["heat"]
    gaps = (heat["human"].cast(float) - heat["model"].cast(float)).abs()
    assert heat["agrees"].to_list() == (gaps <= 1).to_list()
    assert {True} == set(by_lever["alarm"]["agrees"])
    whole = by_lever["*"].sort("case_key")["agrees"].to_list()
    assert whole == heat.sort("case_key")["agrees"].to_list()
    pairs = build_pairs(inputs.records, inputs.cases, inputs.policy)
    figures = compute_agreements(pairs, seen, inputs.records, inputs.policy)
    assert [f.lever for f in figures] == ["alarm", "heat", "*"]
    assert figures[1].assisted.count == heat["agrees"].sum()
    assert (figures[1].alpha, figures[2].alpha) == (None, None)


# The ceiling


def test_the_ceiling_of_numbers_is_within_their_tolerance(replay_of, case):
    inputs = two_levers(replay_of, case)
    pairs = build_pairs(inputs.records, inputs.cases, inputs.policy)
    found = compute_reviewer_agreement(pairs, inputs.records, inputs.case_facts, inputs.policy)
    alarm, heat = found.ceilings
    blind = inputs.records.decisions.filter(pl.col("exposure") == "blind")
    x = blind.sort("case_key", "seat")["value:heat"].cast(float).to_numpy().reshape(-1, 2)
    close = np.abs(x[:, 0] - x[:, 1]) <= 1
    assert (heat.reviewers.pairs.count, heat.reviewers.pairs.n) == (close.sum(), len(x))
    assert heat.reviewers.alpha.value < 1
    assert (heat.with_model, heat.model_alpha) == (None, None)
    assert (alarm.reviewers.pairwise, alarm.with_model.pairwise) == (1.0, 1.0)


def test_every_version_stands_beside_the_same_people(replay_of, case):
    people = [[("ana", "bear"), ("bo", "bear")], [("ana", "no-bear"), ("bo", "bear")]]
    cases = [
        case(f"c{n}", case("x").at + n * FIVE, human=people[n % 4 == 0],
             model={"v1": "bear", "v2": "no-bear"})
        for n in range(40)
    ]  # fmt: skip
    first, second = compute_report_facts(replay_of(cases)).reviewer_agreement.ceilings
    assert (first.version, second.version) == ("v1", "v2")
    assert first.reviewers == second.reviewers
    assert first.reviewers.pairwise == 0.75
    assert (first.with_model.pairwise, second.with_model.pairwise) == (0.875, 0.125)
    assert (first.majority.count, first.majority.n) == (30, 30)  # the ten ties are left out
    assert second.majority.count == 0


def test_levers_of_labels_have_a_ceiling_together(replay_of, case):
    policy = parse_policy(
        """
rollout: two
timezone: UTC
levers: [{id: alarm, labels: [bear, no-bear]}, {id: light, labels: ["on", "off"]}]
sites: [creek]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
    )
    one = policy.levers[0]
    inputs = replay_of(
        often(case, 20, human=[("ana", "bear"), ("bo", "bear")], model={"v1": "bear"}),
        parse_policy(
            TWO_LEVERS.split("  - id: heat", maxsplit=1)[0] + TWO_LEVERS.split("tolerance: 1}\n")[1]
        ),
    )
    light = pl.when(pl.int_range(pl.len()) % 4 == 1).then(pl.lit("off")).otherwise(pl.lit("on"))
    records = replace(
        inputs.records,
        decisions=inputs.records.decisions.with_columns(light.alias("value:light")),
        predictions=inputs.records.predictions.with_columns(pl.lit("on").alias("value:light")),
        outcomes=inputs.records.outcomes.with_columns(pl.lit(None, pl.String).alias("value:light")),
    )
    found = compute_reviewer_agreement(
        build_pairs(records, inputs.cases, policy), records, inputs.case_facts, policy
    )
    by_lever = {c.lever: c for c in found.ceilings}
    assert list(by_lever) == [one.id, "light", "*"]
    assert by_lever["*"].reviewers.pairwise == by_lever["light"].reviewers.pairwise == 0.5
    assert by_lever["*"].with_model.pairwise == 0.75


# Anchoring


def anchored(case, count=4000, agreement=0.85, adopts=0.35, seed=5):
    """Return blind decisions and assisted ones of people who adopt what they see in a share."""
    generator = np.random.default_rng(seed)
    for n in range(count):
        saw = n % 2 == 0
        conflict = generator.random() > agreement
        agrees = not conflict or (saw and generator.random() < adopts)
        yield case(
            f"c{n:05}",
            case("x").at + n * FIVE,
            human="bear" if agrees else "no-bear",
            model={"v1": "bear"},
            exposure="assisted" if saw else "blind",
        )


def test_who_adopts_a_third_of_the_conflicts_is_found_out(replay_of, case):
    facts = compute_report_facts(replay_of(list(anchored(case))))
    (found,) = facts.anchoring
    assert found.assisted.rate > 0.885 > found.blind.rate
    assert found.change.low > 0
    assert found.change.per_100 == pytest.approx(5.25, abs=1.8)
    assert found.adopted.low < 0.35 < found.adopted.high
    assert facts.agreements[0].assisted == found.assisted


def test_people_who_are_not_swayed_are_not_accused(replay_of, case):
    (found,) = compute_report_facts(replay_of(list(anchored(case, adopts=0)))).anchoring
    assert found.change.low < 0 < found.change.high
    assert found.adopted.low == 0


def test_a_hard_cell_with_few_assisted_verdicts_is_no_anchoring(replay_of, case):
    """By day .95 and mostly assisted, by night .60 and mostly blind; nobody adopts anything."""
    generator = np.random.default_rng(6)
    start = case("x").at
    cases = []
    for n in range(3000):
        night = n % 2 == 1
        saw = generator.random() < (0.1 if night else 0.9)
        agrees = generator.random() < (0.6 if night else 0.95)
        hours = timedelta(hours=11 if night else 0) + timedelta(days=n // 60)
        cases.append(
            case(
                f"c{n:05}",
                start + hours + (n % 60) * timedelta(seconds=90),
                human="bear" if agrees else "no-bear",
                model={"v1": "bear"},
                exposure="assisted" if saw else "blind",
            )
        )
    facts = compute_report_facts(replay_of(cases))
    (figures,), (found,) = facts.agreements, facts.anchoring
    assert found.cells == 2
    assert figures.assisted.rate - figures.agreement.rate > 0.2
    assert found.change.low < 0 < found.change.high


def test_without_assisted_verdicts_there_is_no_estimate(facts):
    assert facts.anchoring == ()


# What was right


def test_versions_and_people_against_the_outcome(replay_of, case):
    cases = [
        *often(case, 60, "g", human="bear", model={"v1": "bear"}, outcome="bear"),
        *often(case, 12, "m", 60, human="no-bear", model={"v1": "bear"}, outcome="bear"),
        *often(case, 4, "p", 72, human="bear", model={"v1": "no-bear"}, outcome="bear"),
        *often(case, 10, "u", 76, model={"v1": "bear"}, outcome="no-bear"),
        *often(case, 9, "x", 86, human="bear", model={"v1": "bear"}),
    ]
    (found,) = compute_report_facts(replay_of(cases)).correctness
    assert (found.reference, found.known_cases) == ("outcome", 86)
    assert (found.model.count, found.model.n) == (72, 86)
    assert (found.human.count, found.human.n) == (64, 76)
    assert (found.model_on_same_cases.count, found.model_on_same_cases.n) == (72, 76)
    assert (found.change.first_only, found.change.second_only, found.change.n) == (12, 4, 76)
    bear = next(row for row in found.labels if row.label == "bear")
    assert (bear.human, bear.model, bear.recall.rate) == (76, 82, 72 / 76)


def test_adjudications_stand_apart_and_move_nothing_else(replay_of, case):
    """Adjudicating divergences can only turn a disagreement into an agreement."""
    cases = [
        *often(case, 40, "g", human="bear", model={"v1": "bear"}),
        *often(case, 10, "w", 40, human="no-bear", model={"v1": "bear"}),
    ]
    plain = replay_of(cases)
    judge = {"reviewer": "judge", "exposure": "revealed", "seat": None}
    settled = plain.records.decisions.filter(pl.col("case_key").str.starts_with("w")).with_columns(
        *(pl.lit(v).cast(plain.records.decisions.schema[k]).alias(k) for k, v in judge.items()),
        pl.when(pl.col("case_key") < "w48").then(pl.lit("bear")).otherwise(pl.lit("no-bear"))
        .alias("value:alarm"),
    )  # fmt: skip
    records = replace(
        plain.records, decisions=pl.concat([plain.records.decisions, settled.select(
            plain.records.decisions.columns)])
    )  # fmt: skip
    before, after = (
        compute_report_facts(plain),
        compute_report_facts(replace(plain, records=records)),
    )
    assert before.correctness == ()
    (found,) = after.correctness
    assert (found.reference, found.known_cases) == ("adjudicated", 10)
    assert (found.model.count, found.human.count) == (8, 2)
    assert after.agreements == before.agreements
    assert after.evidence == before.evidence
    assert after.anchoring == ()


def test_a_verdict_in_a_blind_seat_by_who_had_seen_it_settles_nothing(replay_of, case):
    cases = often(case, 5, human="no-bear", model={"v1": "bear"}, exposure="revealed")
    assert compute_report_facts(replay_of(cases)).correctness == ()


# Draws


def worse_above_shadow(case, count=1500):
    """Return good decisions in shadow, then a model that is wrong in one case of five."""
    return [
        *often(case, 100, "a", human="bear", model={"v1": "bear"}),
        *(
            case(f"e{n:05}", case("x").at + (400 + n) * FIVE, human="bear",
                 model={"v1": "no-bear" if n % 5 == 0 else "bear"})
            for n in range(count)
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def held(replay_of, case):
    return replay_of(worse_above_shadow(case), parse_policy(HELD))


def test_the_drawn_share_is_what_was_planned(held):
    rows = {row.stage: row for row in compute_report_facts(held).audits.sampling}
    shadow, above = rows["shadow"], rows["autonomous"]
    assert (shadow.planned, shadow.drawn.rate, shadow.judged.rate) == (1, 1, 1)
    assert above.planned == pytest.approx(0.4 + 0.6 * 0.3)
    assert above.drawn.low < above.planned < above.drawn.high
    assert not above.differs_from_plan
    assert (
        above.unsampled_decisions == above.cases - above.drawn.count
    )  # the history has verdicts on all


def test_weights_tell_the_rate_of_all_cases_from_that_of_the_drawn(held):
    (found,) = compute_report_facts(held).audits.sampled
    agreeing = build_pairs(held.records, held.cases, held.policy).frame["agrees"].mean()
    assert found.unweighted.rate > found.weighted.rate + 0.005
    assert found.weighted.low < agreeing < found.weighted.high
    assert found.weighted.rate == pytest.approx(agreeing, abs=0.02)
    assert found.weighted.effective < found.weighted.n
    assert found.differs_at_most > 1 - found.weighted.rate


def test_a_draw_that_somebody_meddled_with_is_off_plan(held):
    placed = assign_deciders(held)
    few = placed.with_columns(
        decider=pl.when(pl.col("rung") > 0).then(pl.lit("model")).otherwise("decider")
    )
    pairs = build_pairs(held.records, held.cases, held.policy)
    rows = {
        r.stage: r for r in compute_audits(held, pairs, build_sampling_frame(held, few)).sampling
    }
    assert rows["autonomous"].differs_from_plan
    assert not rows["shadow"].differs_from_plan


def test_a_share_of_next_to_nothing_is_no_audit(replay_of, case):
    """A share of one in 100,000 draws nobody: then nothing is known, and that is said."""
    policy = parse_policy(HELD.replace("blind: 40%, audit: 30%", "audit: 0.001%"))
    inputs = replay_of(worse_above_shadow(case, 600), policy)
    above = next(r for r in compute_report_facts(inputs).audits.sampling if r.stage == "autonomous")
    assert (above.drawn.count, above.judged.n, above.judged.rate) == (0, 0, None)
    assert above.cases > 400


def test_cases_below_the_floor_always_go_to_people_and_weigh_as_one(replay_of, case):
    policy = parse_policy(HELD.replace("grace: 1h}", "grace: 1h, confidence_floor: 0.8}"))
    inputs = replay_of(worse_above_shadow(case, 800), policy)
    said = inputs.records.predictions
    unsure = pl.col("case_key").is_in([f"e{n:05}" for n in range(0, 800, 5)])
    said = said.with_columns(confidence=pl.when(unsure).then(0.5).otherwise("confidence"))
    inputs = replace(inputs, records=replace(inputs.records, predictions=said))
    drawn = build_sampling_frame(inputs, assign_deciders(inputs))
    above = drawn.filter(pl.col("rung") > 0)
    assert set(above.filter(unsure)["chance"]) == {1.0}
    assert above.filter(~unsure)["chance"].to_numpy() == pytest.approx(0.58)
    assert above.filter(unsure)["drawn"].all()
    (found,) = compute_report_facts(inputs).audits.sampled
    assert found.unweighted.rate < found.weighted.rate - 0.01  # the unsure ones are read too often


# The hold-out, and the baseline


def test_a_model_that_acts_otherwise_than_people_is_found_in_the_hold_out(held):
    (found,) = compute_holdout_actions(held, build_sampling_frame(held, assign_deciders(held)))
    assert (found.lever, found.stage, found.share, found.unanswered) == (
        "alarm", "autonomous", 0.4, 0,
    )  # fmt: skip
    assert found.model_cases / (found.model_cases + found.human_cases) == pytest.approx(
        0.6, abs=0.05
    )
    sound = found.actions[0]
    assert (sound.action, sound.by_human) == ("sound", found.human_cases)
    assert sound.change.high < 0
    assert found.log_e > np.log(1000)


def test_a_model_that_acts_as_people_do_is_left_alone(replay_of, case):
    generator = np.random.default_rng(11)
    cases = [
        case(f"c{n:05}", case("x").at + n * FIVE, human=said, model={"v1": said})
        for n, said in enumerate(generator.choice(["bear", "no-bear"], 1200, p=[0.2, 0.8]).tolist())
    ]
    inputs = replay_of(cases, parse_policy(HELD))
    (found,) = compute_holdout_actions(
        inputs, build_sampling_frame(inputs, assign_deciders(inputs))
    )
    assert found.log_e < np.log(20)
    assert all(action.change.low < 0 < action.change.high for action in found.actions)


def test_a_stage_without_a_hold_out_has_none(replay_of, case):
    policy = parse_policy(HELD.replace("blind: 40%, audit: 30%", "audit: 30%"))
    assert compute_report_facts(replay_of(worse_above_shadow(case, 300), policy)).hold_outs == ()


def vouched(case, site, window, **counts):
    """Return a baseline by day, with the counts of all ten days together."""
    first, day = case("x").at - timedelta(days=90), timedelta(days=1)
    return [
        BaselineCount(site, window, "alarm", action.replace("_", "-"), n // 10, first + k * day,
                 first + (k + 1) * day, "root")
        for action, n in counts.items() for k in range(10)
    ]  # fmt: skip


def by_day(case, days, n, name, **given):
    """Return n cases on each of some days."""
    at = case("x").at
    return [
        case(f"{name}{day}-{k}", at + timedelta(days=day) + k * FIVE, **given)
        for day in range(days)
        for k in range(n)
    ]


def test_what_is_done_now_stands_against_the_baseline_cell_by_cell(replay_of, case):
    inputs = replay_of(
        [
            *by_day(case, 5, 6, "b", human="bear", model={"v1": "bear"}),
            *by_day(case, 5, 6, "n", human="no-bear", model={"v1": "no-bear"}),
        ]
    )
    baselines = (
        *vouched(case, "creek", "day", sound_alarm=100, nothing=900),
        *vouched(case, "meadow", "day", sound_alarm=50, nothing=50),
    )
    found = compute_baseline_changes(replace(inputs, baselines=baselines))
    assert [(c.side, c.site) for c in found] == [
        (HUMANS, None), (HUMANS, "creek"), (HUMANS, "meadow"),
        ("v1", None), ("v1", "creek"), ("v1", "meadow"),
    ]  # fmt: skip
    both, creek, meadow = found[:3]
    assert (creek.baseline_n, creek.current_n, creek.vouched_by) == (1000, 60, ("root",))
    alarm = creek.actions[0]
    assert (alarm.baseline, alarm.current, alarm.change.second, alarm.change.first) == (
        100,
        30,
        0.1,
        0.5,
    )
    assert alarm.change.low > 20
    assert creek.log_e > np.log(1000)
    assert (meadow.current_n, meadow.log_e, meadow.actions[0].change.per_100) == (0, None, None)
    assert both.actions[0].change.per_100 == pytest.approx(alarm.change.per_100)
    assert (both.current_n, both.baseline_n) == (60, 1100)


def test_cells_count_as_they_are_now_so_that_another_mix_is_no_change(replay_of, case):
    """Pooled, 18 alarms in 100 then and 42 now; in each cell nothing has changed."""
    inputs = replay_of(
        [
            *by_day(case, 4, 5, "cb", human="bear", model={"v1": "bear"}),
            *by_day(case, 4, 5, "cn", human="no-bear", model={"v1": "no-bear"}),
            *by_day(case, 1, 1, "mb", site="meadow", human="bear", model={"v1": "bear"}),
            *by_day(case, 3, 3, "mn", site="meadow", human="no-bear", model={"v1": "no-bear"}),
        ]
    )
    creek = vouched(case, "creek", "day", sound_alarm=100, nothing=100)
    meadow = vouched(case, "meadow", "day", sound_alarm=80, nothing=720)
    found = compute_baseline_changes(replace(inputs, baselines=(*creek, *meadow)))
    alarm = next(c for c in found if c.site is None and c.side == HUMANS).actions[0]
    assert alarm.change.low < 0 < alarm.change.high
    assert (alarm.change.first, alarm.change.second) == pytest.approx((0.42, 0.42))
    assert (alarm.baseline / 1000, alarm.current / 50) == (0.18, 0.42)


def test_a_baseline_in_one_span_hides_how_days_vary_and_has_no_interval(replay_of, case):
    inputs = replay_of(by_day(case, 5, 6, "b", human="bear", model={"v1": "bear"}))
    since = case("x").at - timedelta(days=90)
    whole = BaselineCount(
        "creek", "day", "alarm", "sound-alarm", 80, since, since + timedelta(days=60), "root"
    )
    rest = replace(whole, action="nothing", n=20)
    by_days = vouched(case, "meadow", "day", sound_alarm=80, nothing=720)
    found = compute_baseline_changes(replace(inputs, baselines=(whole, rest, *by_days)))
    both, creek = found[0].actions[0].change, found[1].actions[0].change
    assert (creek.second, creek.per_100, creek.low) == (0.8, None, None)
    assert creek.method == "too few days in the baseline (1): import its counts by day"
    assert (both.per_100, both.method) == (None, creek.method)


def test_what_was_done_is_a_side_of_its_own_where_it_was_told(replay_of, case):
    inputs = replay_of(often(case, 20, human="bear", model={"v1": "bear"}))
    done = pl.DataFrame(
        [
            {"case_key": f"c{n}", "lever": "alarm", "action": "nothing", "by": "person"}
            for n in range(20)
        ],
        schema={k: ACTION_SCHEMA[k] for k in ("case_key", "lever", "action", "by")},
    )
    baselines = tuple(vouched(case, "creek", "day", sound_alarm=10, nothing=90))
    found = compute_baseline_changes(replace(inputs, baselines=baselines, actions=done))
    assert [c.side for c in found] == [HUMANS, ACTUAL, "v1"]
    alarms = {c.side: c.actions[0].current for c in found}
    assert alarms == {HUMANS: 20, ACTUAL: 0, "v1": 20}


def test_sets_stand_against_the_baseline_label_by_label(replay_of, case):
    lever = "{id: alarm, labels: [bear, no-bear], many: true}"
    policy = parse_policy(ONE_LEVER.replace("{id: alarm, labels: [bear, no-bear]}", lever))
    model = {"v1": "(none of them)"}
    both = by_day(case, 5, 6, "b", human="bear;no-bear", model=model)
    alone = by_day(case, 5, 4, "n", human="bear", model=model)
    inputs = replay_of([*both, *alone], policy)
    sets = vouched(case, "creek", "always", none=10, bear=30, no_bear=20)
    texts = {"none": "(none of them)", "no-bear": "bear;no-bear"}
    baselines = [replace(row, action=texts.get(row.action, row.action)) for row in sets]
    found = compute_baseline_changes(replace(inputs, baselines=baselines))
    humans, model = (
        {a.action: (a.baseline, a.current) for a in change.actions} for change in found
    )
    assert humans == {"bear": (50, 50), "no-bear": (20, 30), "(none of them)": (10, 0)}
    assert model == {"bear": (50, 0), "no-bear": (20, 0), "(none of them)": (10, 50)}
    assert {(c.baseline_n, c.current_n, c.log_e, c.has_sets) for c in found} == {
        (60, 50, None, True)
    }
    assert found[0].actions[0].change.first == 1.0


def test_a_replay_without_a_baseline_has_no_change_to_show(facts):
    assert facts.baseline_changes == ()
