"""Audits by confidence: nobody gets past the ledger, and no case is audited less than its share."""

import hmac
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.policy.stages import Stage, UnsureShare
from rollout.core.scope.commands import StopCells
from tests.core.scope.test_floor_assignments import (
    LOOKS,
    SALT,
    History,
    list_answers,
    read_floor,
)
from tests.core.scope.test_floor_steps import ladder
from tests.factories import ANA, CREEK, DAY
from tests.properties import examples

UNSURE = (UnsureShare(0.6, 0.9), UnsureShare(0.9, 0.3))
SUPERVISED = Stage("supervised", blind=0.3)
AUTONOMOUS = Stage("autonomous", blind=0.1, audit=0.1, unsure=UNSURE)
CONFIDENCES = (None, -0.1, 0.0, 0.59, 0.6, 0.89, 0.9, 1.0, 1.01, float("nan"))
AUDITED = replace(ladder(floors=()), stages=(SUPERVISED, AUTONOMOUS))


def find_audited_share(confidence):
    """Return a share by the rule in words: in doubt the highest."""
    if confidence is None or not 0 <= confidence <= 1 or confidence < 0.6:
        return 0.9
    return 0.3 if confidence < 0.9 else 0.1


def draw(key):
    made = hmac.new(SALT, b"stage\x1f" + key.encode(), sha256).digest()
    return (int.from_bytes(made[:8], "big") >> 11) / 2**53


def expect(level, key, confidence):
    """Return decider, exposure, whether it is audited, and the share of such cases."""
    drawn, audited = draw(key), find_audited_share(confidence)
    if level == 0:
        return "human", "blind", False, 1
    if level == 1:
        blind = drawn < 0.3
        return "human", "blind" if blind else "assisted", False, 0.3 if blind else 0.7
    if drawn < 0.1:
        return "human", "blind", False, 0.1
    is_audited = drawn < 0.1 + 0.9 * audited
    return "model", "blind", is_audited, 0.9 * (audited if is_audited else 1 - audited)


def read(answer):
    return answer.decider, answer.exposure, answer.is_audited, pytest.approx(answer.share)


class Audited(History):
    """A rollout whose evidence has no floors."""

    def tick(self, evidence, challenger=None):
        return super().tick(replace(evidence, floors=()), challenger)


@pytest.mark.slow
@examples(
    given(
        st.lists(LOOKS, min_size=1, max_size=9), st.sampled_from([0, 0, 0, 45, 89]), st.booleans()
    ),
    fast=60,
    whole=600,
)
def test_no_history_lets_a_case_past_the_ledger_or_its_audit(looks, later, stops):
    rollout = Audited(AUDITED)
    for number, look in enumerate(looks):
        rollout.look(**look)
        if stops and number == len(looks) - 1:
            rollout.do(StopCells(at=rollout.at, by=ANA, cells=(CREEK,)))
        now = rollout.at + later * DAY + timedelta(minutes=1)
        level, _ = read_floor(rollout.events, now)
        for confidence in CONFIDENCES:
            for key in ("0", "1", "2", "3"):
                expected = expect(level, key, confidence)
                wanted, compiled, local = list_answers(rollout, now, confidence, key)
                for answer in (wanted, local, *([compiled] if compiled else [])):
                    assert expected == read(answer)
                    assert answer.stage == ("shadow", "supervised", "autonomous")[level]


def open_all():
    """Return a rollout that is autonomous."""
    rollout = Audited(AUDITED)
    good = {"pairs": [(390, 1)] * 5, "alarms": (), "calm": set(), "approves": True, "days": 1}
    for _ in range(4):
        rollout.look(**good)
    return rollout


def test_the_less_sure_are_audited_in_a_larger_share_and_those_without_a_confidence_most():
    rollout = open_all()
    now = rollout.at + timedelta(minutes=1)
    counts = {}
    for confidence in (0.95, 0.7, 0.3, None):
        answers = [list_answers(rollout, now, confidence, str(n))[1] for n in range(1000)]
        decided = [answer.is_audited for answer in answers if answer.decider == "model"]
        assert len(decided) == pytest.approx(900, abs=30)
        counts[confidence] = sum(decided) / len(decided)
    assert counts == pytest.approx({0.95: 0.1, 0.7: 0.3, 0.3: 0.9, None: 0.9}, abs=0.04)


def test_whoever_is_audited_when_sure_is_audited_when_unsure():
    """One sampling value: a client that overstates its confidence can only lose audits it owes."""
    rollout = open_all()
    now = rollout.at + timedelta(minutes=1)
    audited = [
        {str(n) for n in range(300) if list_answers(rollout, now, confidence, str(n))[0].is_audited}
        for confidence in (0.95, 0.7, 0.3)
    ]
    assert audited[0] < audited[1] < audited[2]
