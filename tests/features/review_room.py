"""A rollout with cases to judge, on whatever stage a test wants it, and people who judge."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from rollout.data.database.session import Database
from rollout.data.records.records import RecordStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.scope import CellState, Grant, Scope, Version
from rollout.engine.records.records import Case, Prediction
from rollout.features.reviews import reviews
from rollout.features.reviews.decisions import find_hidden_cases
from rollout.features.reviews.reviews import DecisionDraft
from rollout.kernel.calendar.instants import Cell
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import RolloutState, load_rollout_state
from tests.data.snapshots import filled_once
from tests.factories import replace_cell_state

START = datetime(2027, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
POLICY = """
rollout: bears
timezone: UTC
levers:
  - id: alarm
    labels: [bear, fox, none]
    actions: {bear: ring, fox: wait, none: wait}
    answer_within: 2m
    unanswered: ring
sites: [creek, lake]
stages: [{id: supervised, blind: 50%}, {id: autonomous, audit: 50%}]
evidence: {unit: case, grace: 24h, verdicts: VERDICTS, second_verdict: SECOND, FURTHER}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 90%}]}
  - {to: autonomous, require: [{measure: agreement, at_least: 95%}]}
"""


def policy_text(verdicts=1, second="0%", further="outside: unknown"):
    made = POLICY.replace("VERDICTS", str(verdicts)).replace("SECOND", second)
    return made.replace("FURTHER", further)


def person(name, *rights, machine=False):
    """Return somebody with rights, by default to review everywhere."""
    return Caller(name, machine, rights or (AssignedRole("reviewer", "bears"),))


ANA, BO, CY = person("ana"), person("bo"), person("cy")
DAN = person("dan", AssignedRole("operator", "bears"), AssignedRole("admin", "bears"))


def on_stage(rollout_state: RolloutState, rung: int, version: str = "v1") -> RolloutState:
    """Return the state with the version on a stage in every cell."""
    scope: Scope = replace(
        rollout_state.scope, versions={version: Version(version, START - 9 * DAY)}
    )
    for cell in rollout_state.policy.cells:
        grants = tuple(
            Grant(stage.id, START - DAY, START + 90 * DAY, f"P-{number}", START - DAY)
            for number, stage in enumerate(rollout_state.policy.stages[:rung])
        )
        state = CellState(START - DAY, START - DAY, grants)
        scope = replace_cell_state(scope, Cell(cell.site, cell.window), version, state)
    return replace(rollout_state, scope=scope)


@filled_once
def apply_room_policy(database, text):
    """Apply the policy."""
    apply_policy(
        database, text, Actor("dan"), START - 10 * DAY, salt=bytes(32), service_salt=bytes(32)
    )


@dataclass
class Room:
    """Cases come in, people judge them; `at` is now."""

    database: Database
    rung: int = 0
    text: str = field(default_factory=policy_text)
    at: datetime = START

    def __post_init__(self):
        apply_room_policy(self.database, self.text)
        with self.database.begin_read() as transaction:
            self.stood = on_stage(load_rollout_state(transaction, "bears"), self.rung)

    def arrive(self, *keys, site="creek", label="bear", occurred_at=None, **more):
        """Let cases come in together with what v1 says, if anything."""
        cases = [
            Case(
                key=key,
                site=site,
                occurred_at=occurred_at or self.at,
                window="always",
                attributes={"weather": "dry"},
                media={"still": f"{key}.jpg"},
                episode=more.get("episode"),
            )
            for key in keys
        ]
        fields = {k: v for k, v in more.items() if k not in {"episode", "answers"}}
        answers = more.get("answers") or [
            Prediction(key=k, version="v1", answers={"alarm": label}, **fields) for k in keys
        ]
        with self.database.begin_write() as transaction:
            items = cases if label is None else [*cases, *answers]
            RecordStore(transaction, self.stood.rollout).store(items, received_at=self.at)
            reviews.open_reviews(transaction, self.stood, cases, self.at)
        return self

    def keep(self, *records):
        with self.database.begin_write() as transaction:
            RecordStore(transaction, self.stood.rollout).store(records, received_at=self.at)

    def later(self, span):
        self.at += span
        return self

    def claim(self, who, **more):
        return reviews.claim_reviews(self.database, who, self.stood, self.at, **more).tasks

    def take(self, who, **more):
        """Return the one case that somebody is given, None if there is none."""
        tasks = self.claim(who, **more)
        assert len(tasks) <= 1
        return tasks[0] if tasks else None

    def judge(self, who, review, label="bear", **more):
        answers = {} if label is None else {"alarm": label}
        draft = DecisionDraft(answers=answers, unsure=label is None, **more)
        return reviews.submit_decision(self.database, who, self.stood, review, draft, self.at)

    def done(self, who, label="bear", **more):
        """Let somebody judge the next case."""
        return self.judge(who, self.take(who, **more).review, label)

    def mine(self, who):
        return reviews.load_own_reviews(self.database, who, self.stood, self.at)

    def may_see(self, who, key):
        with self.database.begin_read() as transaction:
            return not find_hidden_cases(transaction, self.stood, who, [key], self.at)

    def show(self, who, key, page="case"):
        with self.database.begin_write() as transaction:
            reviews.record_exposure(
                transaction, self.stood, who, [key], content="prediction", page=page, at=self.at
            )
