from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.engine.files.policy_draft import format_draft
from rollout.kernel.policy_files.reader import parse_policy
from tests.engine.evidence import histories


def history(labels, *, episodes=None, exposure="blind", decided_at=None):
    keys = [f"c{n}" for n in range(len(labels))]
    named = episodes or [None] * len(keys)
    cases = [
        (key, n, {"episode": name}) for n, (key, name) in enumerate(zip(keys, named, strict=True))
    ]
    said = {"exposure": exposure}
    delays = decided_at if isinstance(decided_at, list) else [decided_at] * len(keys)
    times = [{**said, "at": None if d is None else n + d} for n, d in enumerate(delays)]
    return histories.records(
        histories.cases(*cases),
        histories.predictions(*zip(keys, labels, strict=True)),
        histories.decisions(*zip(keys, labels, times, strict=True)),
    )


def draft(labels, **more):
    return format_draft(history(labels, **more), rollout="bears", timezone="Europe/Vienna")


def test_a_draft_loads_and_names_what_the_records_have():
    policy = parse_policy(draft(["bear", "none", "none"]))
    assert (policy.rollout, policy.timezone) == ("bears", "Europe/Vienna")
    assert policy.levers[0].labels == ("none", "bear")
    assert [site.id for site in policy.sites] == ["creek"]
    assert policy.evidence.unit == "case"
    assert [gate.to for gate in policy.gates] == ["supervised"]


def test_the_line_that_says_who_registers_cases_would_load():
    text = draft(["bear", "none"])
    assert parse_policy(text).evidence.sources.cases is None
    (line,) = (each for each in text.splitlines() if "cases:" in each and each.startswith("  # s"))
    policy = parse_policy(text.replace(line, line.replace("# ", "")))
    assert policy.evidence.sources.cases == ("camera-1",)


def test_labels_that_look_like_something_else_survive():
    odd = ["no", "0", "1.50", "a, b", "[x]", "it's", "a: b", "#1", "ünder", "true", "~", "- x", " "]
    assert set(parse_policy(draft(odd)).levers[0].labels) == set(odd) - {" "}


def test_an_episode_column_makes_episodes_the_unit():
    text = draft(["bear", "none"], episodes=["e1", "e2"])
    assert parse_policy(text).evidence.unit == "episode"
    assert parse_policy(text).evidence.episode_span is None


def test_cases_without_an_episode_get_a_span():
    text = draft(["bear", "none"], episodes=["e1", None])
    assert parse_policy(text).evidence.episode_span is not None


def test_grace_covers_all_but_a_thousandth_of_the_decision_delays():
    assert parse_policy(draft(["bear"] * 20, decided_at=50)).evidence.grace.days == 3
    assert parse_policy(draft(["bear"] * 20, decided_at=5)).evidence.grace == timedelta(hours=5)
    late = [1] * 199 + [30]  # 99.5 % within an hour: that quantile would lose a pair
    text = draft(["bear"] * 200, decided_at=late)
    assert parse_policy(text).evidence.grace == timedelta(hours=30)
    assert "grace" not in draft(["bear"])


def test_grace_covers_the_delays_of_cases_too():
    records = history(["bear"] * 20, decided_at=2)
    received_at = pl.col("occurred_at") + pl.duration(hours=7)
    records = replace(records, cases=records.cases.with_columns(received_at=received_at))
    text = format_draft(records, rollout="bears", timezone="Europe/Vienna")
    assert parse_policy(text).evidence.grace == timedelta(hours=7)
    assert "# it looks like a device or a batch that sends once a day" in text
    assert "# sources: {vouched: [{account: NAME, within: 31h}]}" in text


def test_a_grace_of_months_says_why_it_may_be_so_long():
    assert "labels were made later" in draft(["bear"] * 20, decided_at=24 * 31)
    assert "labels were made later" not in draft(["bear"] * 20, decided_at=24 * 30)


def test_decisions_of_unknown_exposure_get_a_comment():
    text = draft(["bear"], exposure="unknown")
    assert "outside: unknown" in text
    assert not parse_policy(text).evidence.outside_blind
    assert "outside" not in draft(["bear"])


def test_a_rare_label_is_pointed_at_and_its_row_would_load():
    text = draft(["bear", *["none"] * 49])
    assert "# rare: bear (2 %)" in text
    row = "      # - {measure: recall, label: bear, at_least: 80%}"
    policy = parse_policy(text.replace(row, row.replace("# ", "")))
    measures = [condition.measure.name for condition in policy.gates[0].require]
    assert measures == ["agreement", "recall"]


def test_many_different_numbers_are_a_range():
    policy = parse_policy(draft([f"{n / 4}" for n in range(-10, 100)]))
    number = policy.levers[0].number
    assert number is not None
    assert (number.low, number.high) == (-3.0, 25.0)


def test_invalid_names_are_excluded_with_a_comment():
    keys = ["a", "b"]
    found = histories.records(
        histories.cases(("a", 0), ("b", 1, {"site": "gate*"})),
        histories.predictions(*zip(keys, ["bear", "(late)"], strict=True)),
    )
    text = format_draft(found, rollout="bears", timezone="UTC")
    assert "# excluded, because no policy can name them: 'gate*'" in text
    assert parse_policy(text).levers[0].labels == ("bear",)


@pytest.mark.parametrize(("rollout", "timezone"), [("a b", "UTC"), ("a", "Mars")])
def test_an_id_or_zone_that_is_none_is_refused(rollout, timezone):
    with pytest.raises(ValueError, match="is no"):
        format_draft(history(["bear"]), rollout=rollout, timezone=timezone)


def test_records_without_an_answer_are_refused():
    with pytest.raises(ValueError, match="no record answers alarm"):
        format_draft(history([]), rollout="a", timezone="UTC")
