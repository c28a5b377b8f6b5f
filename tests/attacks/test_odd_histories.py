"""Whatever may be sent to a shipped policy is counted, checked and reported, and nobody is accused.

Histories are made from seeds: odd texts and numbers in every field, repeats, later revisions, cases
that move, decisions that name their case's place. After two ticks nothing is at fault and the
report can be made.
"""

import json
import random
from pathlib import Path

import pytest

from rollout.engine.decide.commands import Actor
from rollout.features.reports.archive import format_here
from rollout.features.reports.builder import ReportOptions, draft_here
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.factories import DAY, HOUR, MINUTE, NOON

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [*ROOT.glob("examples/*/policy.yaml"), *ROOT.glob("config/policies/*.yaml")],
    key=lambda file: (file.parent.name, file.name),
)
TEXTS = (
    *("\t", "\n", "a\\b", "{", "}", "{a,b}", "NULL", "null", "nan", "NaN", "inf", "-inf", "1e5"),
    *("1,5", "\u0663", "\u0663.\u0665", "\u00bd", "\u00b2", "\u2167", "0x10", "1_000", "+1"),
    *("-0.0", " 5", "5 ", "1e400", "1e-400", "9" * 60, "0" * 50 + "5", "5.", ".5", "\u202e"),
    *("\ufeff", "\u200b", "|", "a|b", ",", "a,b", ";", "[]", "True", "-", "", "\U0001f43b"),
    *("x" * 500, "%s", "'", '"', "\x7f", "\x1f", "None", "human", "model", "\ufb00", "\u0130"),
)
NUMBERS = (0, 1, 5, -1, 1e308, 10**30, 1.5, -0.0, True, None, [], ["x"], {"a": 1})
AGES = (1, 5, 30, 60, 600, 3_000, 10_000)  # minutes


class OddSender:
    """Makes items of one rollout, drawn by a seed."""

    def __init__(self, policy, seed):
        self.policy, self.random = policy, random.Random(f"{policy.rollout} {seed}")  # noqa: S311 - no secret
        self.sites = [site.id for site in policy.sites]
        self.now = NOON

    def choose(self, *values):
        return self.random.choice(values)

    def maybe(self, share, **values):
        return values if self.random.random() < share else {}

    def ago(self):
        return (self.now - self.choose(*AGES) * MINUTE).isoformat()

    def answer(self):
        answers = {}
        for lever in self.policy.levers:
            values = [*NUMBERS, *TEXTS, *lever.labels * 20]
            answers |= self.maybe(0.9, **{lever.id: self.choose(*values)})
        return answers

    def make_cases(self, count):
        """Return items about as many cases; keys and episodes come from different names."""
        for number in range(count):
            key = self.choose(f"k{number}", f"k{self.random.randrange(count)}", *TEXTS[:20])
            yield self.make_case(key, number)
            versions = ("v1", self.choose("v2", "V1", *TEXTS))
            yield from (self.make_prediction(key, version) for version in versions)
            yield from (self.make_decision(key) for _ in range(self.random.randrange(3)))
            if self.random.random() < 0.5:
                yield self.make_outcome(key)

    def make_case(self, key, number):
        item = {"kind": "case", "key": key, "site": self.choose(*self.sites)}
        item |= {"occurred_at": self.ago()} | self.maybe(0.2, revision=self.choose(1, 2, 3))
        attributes = {self.choose("light", *TEXTS): self.choose(1, 2.5, True, None, *TEXTS)}
        item |= self.maybe(0.5, attributes=attributes)
        return item | self.maybe(0.4, episode=f"e{number % 5}{self.choose('', *TEXTS)}")

    def make_prediction(self, key, version):
        item = {"kind": "prediction", "key": key, "version": version, "answers": self.answer()}
        item |= self.maybe(0.5, confidence=self.choose(0, 1, 0.5, 1e-300, "0.5", 2))
        item |= self.maybe(0.3, latency_ms=self.choose(0, 1e300, 1e-9, -1, 3.5))
        item |= self.maybe(0.1, error=self.choose(*TEXTS)) | self.maybe(0.3, at=self.ago())
        return item | self.maybe(0.2, revision=2)

    def make_decision(self, key):
        reviewer = self.choose("bo", "ana", "Ana", *TEXTS)
        item = {"kind": "decision", "key": key, "reviewer": reviewer, "answers": self.answer()}
        item |= self.maybe(0.3, submitted_at=self.ago()) | self.maybe(0.2, unsure=True)
        item |= self.maybe(0.3, exposure=self.choose("blind", "assisted", "revealed"))
        return item | self.maybe(0.2, site=self.choose(*self.sites), occurred_at=self.ago())

    def make_outcome(self, key):
        item = {"kind": "outcome", "key": key, "at": self.ago(), "answers": self.answer()}
        values = {each.id: self.choose(0, 5, -20, 60, 1e308) for each in self.policy.outcomes}
        return item | self.maybe(0.3, harm=self.choose(*TEXTS)) | {"values": values}


def send(client, rollout, items):
    for start in range(0, len(items), 100):
        answer = client.by("ingest").post(
            f"/v1/rollouts/{rollout}/records",
            content=json.dumps(items[start : start + 100]),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 200, answer.text
        yield from (item["status"] for item in answer.json()["items"])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.simulation)])
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_odd_history_is_counted_checked_and_reported(client, clock, database, file, seed):
    policy = parse_policy(file.read_text("utf-8"))
    apply_policy(database, file.read_text("utf-8"), Actor("zoe"), NOON - DAY)
    sender, ticker = OddSender(policy, seed), Ticker(database, policy.rollout, "one")
    statuses = []
    for clock.at in (NOON, NOON + 5 * DAY):
        sender.now = clock.at
        statuses += send(client, policy.rollout, [*sender.make_cases(50)])
        assert ticker.tick(clock.at + 3 * HOUR) is not None
    assert statuses.count("accepted") > len(statuses) / 3
    ticker.tick(NOON + 20 * DAY)
    report = EvidenceCheck(database, policy.rollout).check_all()
    assert report.faults == []
    assert report.records > 100
    draft = draft_here(
        database, policy.rollout, "month", ReportOptions(), NOON + 21 * DAY, lambda *_: None
    )
    assert format_here(json.loads(draft.report.body), "html", None)
