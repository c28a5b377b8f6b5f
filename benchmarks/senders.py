"""What senders make of evidence: whole replays of 40 cells and 60 days.

`python benchmarks/senders.py [--seeds 20] [NAME…]` prints for each way to send in how many cells
the first widening was raised, or applied, and the median day. The model is right in a share of
cases; each cell has 20 cases a day, at random times; the gate asks for 95 % agreement, at the first
attempt's share of 5 % a year. Five seeds at most of what files can't say, and of gains.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from rollout.engine.decide.assignment import SAMPLE
from rollout.engine.decide.commands import Actor, BeginNextAttempt
from rollout.engine.events import ProposalRaised, Widened
from rollout.engine.evidence.frames import (
    NAMED_PLACE_SCHEMA,
    REMARK_SCHEMA,
    RecordFrames,
    Schema,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.evidence.version_uses import DRAWS
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import NothingToReplayError, replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.calendar.instants import EPOCH, Cell, count_micros
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.sampling import compute_sampling_value

START = datetime(2026, 3, 2, tzinfo=UTC)
CELLS, DAYS, CASES_A_DAY = 40, 60, 20
SERVICE_SALT = bytes(32)
NO_FILES = RecordPaths(Path(), Path())
SECOND, MINUTE, HOUR = 1 / 86_400, 1 / 1_440, 1 / 24
POLICY = """
rollout: senders
timezone: UTC
levers: [{{id: answer, labels: ["yes", "no"]}}]
sites: [{sites}]
{windows}
stages: [{{id: supervised, blind: 50%}}]
evidence: {{unit: {unit}, grace: {grace}, outside: blind,
  sources: {{vouched: [{vouched}], accounts: [{{account: desk, reviewers: ["*"]}}]}}}}
versions: [{{id: v1, sample: {sample}}}]
gates:
  - {{to: supervised, require: [{{{require}}}], risk: 5%,
     minimum: {{units: {units}, days: 7, reviewers: 1}}, approvals: [operator]}}
tick: {tick}
"""


@dataclass
class SentCases:
    """Cases of all cells, in the order of their times; times are days, infinite if it never comes.

    Attributes:
        cell, occurred, is_right: which cell, when, and whether the model agrees with people. Each
            decision names cell and time.
        sent_cell, sent_time: which cell and time the sender of the case names.
        is_yes: whether people answer yes.
        sample: share of the cases on which the version runs, as the service draws them.
        episode: number of each case's episode; None if cases are units.
        received, predicted, decided, told: receipts of case and prediction, when it was decided,
            and the receipt of that.
        begun_anew: by cell when an operator begins the next attempt.
    """

    rng: np.random.Generator
    cell: np.ndarray
    occurred: np.ndarray
    is_right: np.ndarray
    sample: float = 1.0
    is_yes: np.ndarray = field(init=False)
    episode: np.ndarray | None = None
    sent_cell: np.ndarray = field(init=False)
    sent_time: np.ndarray = field(init=False)
    received: np.ndarray = field(init=False)
    predicted: np.ndarray = field(init=False)
    decided: np.ndarray = field(init=False)
    told: np.ndarray = field(init=False)
    begun_anew: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        """Let all come at once, and people decide yes after a minute."""
        self.is_yes = np.ones(len(self.cell), dtype=bool)
        self.sent_cell, self.sent_time = self.cell, self.occurred
        self.begun_anew = {}
        self.received = self.occurred + SECOND
        self.predicted = self.occurred + SECOND
        self.decide(np.full(len(self.cell), MINUTE))

    @classmethod
    def draw(
        cls, seed: int, truth: float, *, cells: int = CELLS, days: int = DAYS, sample: float = 1.0
    ) -> "SentCases":
        """Draw the cases of a seed for a model that is right in a share of them."""
        rng = np.random.default_rng(seed)
        n = rng.poisson(CASES_A_DAY * days, cells)
        cell = np.repeat(np.arange(cells), n)
        occurred = np.sort(rng.random(len(cell)) * days)
        return cls(
            rng, rng.permutation(cell), occurred, rng.random(len(cell)) < truth, sample=sample
        )

    @property
    def keys(self) -> list[str]:
        """Return the key of each case."""
        return [f"k{number:06}" for number in range(len(self.cell))]

    @property
    def is_drawn(self) -> np.ndarray:
        """Return whether the version runs on each case."""
        units = self.keys if self.episode is None else [f"e{number}" for number in self.episode]
        values = [compute_sampling_value(SERVICE_SALT, SAMPLE, "v1", unit) for unit in units]
        return np.array(values) < self.sample

    def repeat(self, numbers: np.ndarray) -> None:
        """Send some cases once more, under other keys."""
        for item in fields(self):
            values = getattr(self, item.name)
            if isinstance(values, np.ndarray):
                setattr(self, item.name, np.concatenate([values, values[numbers]]))

    def decide(self, delay: np.ndarray) -> None:
        """Let people decide so long after each case, which is received at once."""
        self.decided = self.occurred + delay
        self.told = self.decided + SECOND


def at_once(cases: SentCases) -> None:
    """Change nothing."""


def race(cases: SentCases) -> None:
    """Let one prediction in twenty come up to two seconds after the decision."""
    is_slow = cases.rng.random(len(cases.cell)) < 0.05
    late = cases.told + cases.rng.random(len(cases.cell)) * 2 * SECOND
    cases.predicted = np.where(is_slow, late, cases.predicted)


def decide_late(cases: SentCases) -> None:
    """Let decisions come two hours late, log-normal."""
    cases.decide(2 * HOUR * np.exp(cases.rng.standard_normal(len(cases.cell))))


def send_nightly(cases: SentCases) -> None:
    """Let a job at two o'clock send each day's cases and predictions."""
    night = np.floor(cases.occurred - 2 * HOUR) + 1 + 2 * HOUR
    cases.received = cases.predicted = night + cases.rng.random(CELLS)[cases.cell] * HOUR / 2


def score_nightly(cases: SentCases) -> None:
    """Let a job at two o'clock predict each day's cases, which were sent at once."""
    received = cases.received.copy()
    send_nightly(cases)
    cases.received = received


def leave_as_it_is(_cases: SentCases, _raised: np.ndarray) -> None:
    """Change nothing after the raising: widenings are counted."""


def come_back_every_third_day(cases: SentCases) -> None:
    """Let devices send cases and predictions when they are back."""
    phase = 3 * cases.rng.random(CELLS)[cases.cell]
    cases.received = cases.predicted = (np.floor((cases.occurred - phase) / 3) + 1) * 3 + phase


def delay_disagreeing(days: float) -> Callable[[SentCases], None]:
    """Let the cases in which the model is wrong come late."""

    def change(cases: SentCases) -> None:
        cases.received = np.where(cases.is_right, cases.received, cases.occurred + days)
        cases.predicted = cases.received

    return change


def wait_for_answers(cases: SentCases) -> None:
    """Let cases and predictions come after the decision, and only where they agree."""
    cases.received = cases.predicted = np.where(cases.is_right, cases.told + SECOND, np.inf)


def copy_answers(cases: SentCases) -> None:
    """Let predictions be what people decided, before their decisions are received."""
    cases.told = cases.decided + 8 * HOUR
    cases.predicted = cases.decided + HOUR
    cases.is_right[:] = True


def predict_agreeing_only(cases: SentCases) -> None:
    """Let another account send all cases at once, and the model answer where it will agree."""
    cases.predicted = np.where(cases.is_right, cases.predicted, np.inf)


def leave_out_disagreeing(cases: SentCases) -> None:
    """Send no case in which the model is wrong."""
    cases.received = np.where(cases.is_right, cases.received, np.inf)


def move_disagreeing(cases: SentCases) -> None:
    """Send the cases in which the model is wrong as cases of the first cell."""
    cases.sent_cell = np.where(cases.is_right, cases.cell, 0)


def move_to_night(cases: SentCases) -> None:
    """Date the mornings' cases in which the model is wrong into the night before."""
    is_moved = ~cases.is_right & (cases.occurred % 1 < 1 / 2) & (cases.occurred >= 1)
    cases.sent_time = np.where(is_moved, cases.occurred - 1 / 2, cases.occurred)


def lose_cases(cases: SentCases) -> None:
    """Lose one case in a hundred."""
    cases.received[cases.rng.random(len(cases.cell)) < 0.01] = np.inf


def begin_with_backlog(cases: SentCases) -> None:
    """Let what happened on the first day be predicted at its end, after people decided."""
    cases.predicted = np.maximum(cases.predicted, 1 + SECOND)


def go_offline(cases: SentCases) -> None:
    """Let each box be offline for a week, and send then what it holds."""
    back = draw_returns(cases)[cases.cell]
    is_offline = (cases.occurred >= back - 7) & (cases.occurred < back)
    cases.received = np.where(is_offline, back + MINUTE, cases.received)
    cases.predicted = cases.received


def draw_returns(cases: SentCases) -> np.ndarray:
    """Return by cell when its box is back, the same for the same cases."""
    return 10 + 10 * np.random.default_rng(len(cases.cell)).random(CELLS)


def begin_anew_when_back(cases: SentCases) -> None:
    """Let an operator begin the next attempt an hour after each box is back."""
    go_offline(cases)
    cases.begun_anew = {cell: at + HOUR for cell, at in enumerate(draw_returns(cases))}


def miss_label_silently(cases: SentCases) -> None:
    """Let 40 % of yes be answered no, and leave out just these predictions."""
    cases.is_yes = cases.rng.random(len(cases.cell)) < 0.3
    cases.is_right = ~cases.is_yes | (cases.rng.random(len(cases.cell)) < 0.6)
    predict_agreeing_only(cases)


def begin_silently(cases: SentCases) -> None:
    """Answer at first, until a unit is counted, only where the answer will agree."""
    is_silent = ~cases.is_right & (cases.occurred < 14)
    cases.predicted = np.where(is_silent, np.inf, cases.predicted)


def predict_drawn_only(cases: SentCases) -> None:
    """Predict where the service says that the version runs."""
    cases.predicted = np.where(cases.is_drawn, cases.predicted, np.inf)


def grind_keys(cases: SentCases) -> None:
    """Send each case in which the model is wrong under new keys until one isn't drawn.

    People decide the last one; the others are neither predicted nor decided.
    """
    last = np.flatnonzero(~cases.is_right)
    while (drawn := last[cases.is_drawn[last]]).size:
        last = np.arange(len(cases.cell), len(cases.cell) + len(drawn))
        cases.repeat(drawn)
        cases.predicted[drawn] = cases.told[drawn] = np.inf
    predict_drawn_only(cases)


def grow_episodes(cases: SentCases) -> None:
    """Let three cases join each episode whose first decision disagrees, and be decided too."""
    cases.episode = np.arange(len(cases.cell))
    wrong = np.flatnonzero(~cases.is_right).repeat(3)
    truth = cases.is_right.mean()
    for name in ("cell", "sent_cell", "sent_time", "occurred", "is_yes", "episode"):
        values = getattr(cases, name)
        setattr(cases, name, np.concatenate([values, values[wrong]]))
    is_right = cases.rng.random(len(wrong)) < truth
    cases.is_right = np.concatenate([cases.is_right, is_right])
    for name, delay in (("received", 1), ("predicted", 1), ("decided", 2), ("told", 3)):
        later = cases.told[wrong] + delay * SECOND
        setattr(cases, f"_{name}", np.concatenate([getattr(cases, name), later]))
    for name in ("received", "predicted", "decided", "told"):
        setattr(cases, name, cases.__dict__.pop(f"_{name}"))


def turn_bad(cases: SentCases, raised: np.ndarray) -> None:
    """Let the model be right in 30 % of the cases from the raising on."""
    is_bad = cases.occurred > raised[cases.cell]
    cases.is_right &= ~is_bad | (cases.rng.random(len(cases.cell)) < 0.3)


def fall_silent(cases: SentCases, raised: np.ndarray) -> None:
    """Let the model be wrong always from the raising on, and predict nothing more."""
    cases.predicted = np.where(cases.occurred > raised[cases.cell], np.inf, cases.predicted)


@dataclass(frozen=True)
class Sending:
    """A way to send.

    Attributes:
        name, truth, change: what it is called, how often the model is right, and what is changed.
        grace, within: of the policy, in days; None: the sender is not vouched for.
        unit, require, sample, windows: of the policy.
        then: changes what comes after the raising of each cell, which is approved a day later;
            counted are widenings then, else raisings.
    """

    name: str
    truth: float
    change: Callable[[SentCases], None]
    grace: float = 1.0
    within: float | None = None
    unit: str = "case"
    require: str = "measure: agreement, at_least: 95%"
    sample: float = 1.0
    windows: str = ""
    then: Callable[[SentCases, np.ndarray], None] | None = None


NORMAL = (
    Sending("at once", 0.98, at_once),
    Sending("services race", 0.98, race, within=5 * MINUTE),
    Sending("decisions 2 h late", 0.98, decide_late, grace=2.0),
    Sending("nightly", 0.98, send_nightly, grace=26 * HOUR, within=26 * HOUR),
    Sending("scored at night", 0.98, score_nightly, 26 * HOUR, 26 * HOUR, then=leave_as_it_is),
    Sending("back every third day", 0.98, come_back_every_third_day, 74 * HOUR, 74 * HOUR),
    Sending("offline for a week, 8 days", 0.98, go_offline, grace=8.0, within=8.0),
    Sending("backlog of a day", 0.98, begin_with_backlog),
)
ADVERSE = (
    Sending("at once, .93", 0.93, at_once),
    Sending("nightly, not vouched for", 0.98, send_nightly, grace=26 * HOUR),
    Sending("offline for a week, 50 hours", 0.98, go_offline, 50 * HOUR, 50 * HOUR),
    Sending("disagreeing 2 days late", 0.93, delay_disagreeing(2)),
    Sending("disagreeing 14 days late", 0.93, delay_disagreeing(14)),
    Sending("disagreeing never sent", 0.93, leave_out_disagreeing),
    Sending("disagreeing sent elsewhere", 0.93, move_disagreeing),
    Sending(
        "disagreeing dated by night",
        0.93,
        move_to_night,
        windows='windows: [{id: day, hours: "00:00-12:00"}, {id: night, hours: "12:00-24:00"}]',
    ),
    Sending("waits for answers", 0.60, wait_for_answers),
    Sending("predicts agreeing only", 0.60, predict_agreeing_only),
    Sending("copies answers before receipt", 0.60, copy_answers),
    Sending(
        "silent on a label's misses",
        1.0,
        miss_label_silently,
        require='measure: recall, label: "yes", at_least: 85%',
    ),
    Sending("keys ground, a half drawn", 0.93, grind_keys, sample=0.5),
    Sending("silent at first", 0.93, begin_silently, grace=14.0),
    Sending("episodes grown after a decision", 0.93, grow_episodes, unit="episode"),
    Sending("turns bad after the raising", 0.98, at_once, then=turn_bad),
    Sending("falls silent after the raising", 0.98, at_once, then=fall_silent),
    Sending("scored at night, .93", 0.93, score_nightly, 26 * HOUR, 26 * HOUR),
)
SAMPLED = (Sending("a half drawn", 0.98, predict_drawn_only, sample=0.5),)
DELAYED = (  # a night's predictions tell nothing until they come
    Sending("scored, then bad", 0.98, score_nightly, 26 * HOUR, 26 * HOUR, then=turn_bad),
    Sending("scored, then silent", 0.98, score_nightly, 26 * HOUR, 26 * HOUR, then=fall_silent),
)
LOSING = (
    Sending("1 % of cases lost", 0.98, lose_cases),
    Sending("offline, attempt begun anew", 0.98, begin_anew_when_back, 50 * HOUR, 50 * HOUR),
)


TABLES = {
    "good model": NORMAL,
    "a part of cases": SAMPLED,
    "losses cost": LOSING,
    "seen a night later": DELAYED,
    "should not open": ADVERSE,
}
FEW_SEEDS = 5  # of what takes longer


def write_policy(sending: Sending, cells: int = CELLS, units: int = 100, tick: str = "15m") -> str:
    """Return the policy of a sending."""
    within = sending.within
    vouched = f"{{account: box, within: {_format_span(within)}}}" if within else ""
    return POLICY.format(
        sites=", ".join(name_site(number) for number in range(cells)),
        grace=_format_span(sending.grace),
        vouched=vouched,
        unit=sending.unit,
        require=sending.require,
        windows=sending.windows,
        sample=f"{sending.sample * 100:g}%",
        units=units,
        tick=tick,
    )


def _format_span(days: float) -> str:
    return f"{round(days / MINUTE)}m"


def name_site(number: int) -> str:
    """Return the site of a cell."""
    return f"c{number:02}"


def to_instants(times: np.ndarray) -> pl.Series:
    """Return days as instants."""
    micros = np.where(np.isfinite(times), np.nan_to_num(times, posinf=0) * 86_400e6, 0)
    since = pl.Series(micros.astype(np.int64)) + count_micros(START - EPOCH)
    return since.cast(pl.Datetime("us", "UTC"))


def build_history(cases: SentCases) -> RecordFrames:
    """Return the records that are received within the days."""
    keys = pl.Series(cases.keys)
    is_drawn = pl.Series(cases.is_drawn).replace_strict(
        {True: '{"v1":true}', False: '{"v1":false}'}, return_dtype=pl.String
    )
    draws = {} if cases.sample == 1 else {DRAWS: is_drawn}
    names = pl.Series([name_site(number) for number in range(CELLS)])

    def frame(schema: Schema, is_sent: np.ndarray, **columns: pl.Series) -> pl.DataFrame:
        missing = {
            name: pl.Series([None] * len(keys), dtype=kind)
            for name, kind in schema.items()
            if name not in columns
        }
        whole = pl.DataFrame({**missing, **columns}).select(
            pl.col(name).cast(kind) for name, kind in schema.items()
        )
        return whole.filter(pl.Series(is_sent))

    decided = pl.Series(np.where(cases.is_yes, "yes", "no"))
    says = pl.Series(np.where(cases.is_yes == cases.is_right, "yes", "no"))
    episodes = (
        {} if cases.episode is None else {"episode": pl.Series([f"e{n}" for n in cases.episode])}
    )
    has_case = cases.received < DAYS
    case_rows = frame(
        build_cases_schema(), has_case, case_key=keys, site=names[cases.sent_cell],
        occurred_at=to_instants(cases.sent_time), received_at=to_instants(cases.received),
        **episodes, **draws,
    )  # fmt: skip
    prediction_rows = frame(
        build_predictions_schema(("answer",)), has_case & (cases.predicted < DAYS), case_key=keys,
        version=pl.Series(["v1"] * len(keys)), received_at=to_instants(cases.predicted),
        **{"value:answer": says},
    )  # fmt: skip
    decision_rows = frame(
        build_decisions_schema(("answer",)), cases.told < DAYS, case_key=keys,
        reviewer=pl.Series(["ana"] * len(keys)), unsure=pl.Series([False] * len(keys)),
        exposure=pl.Series(["blind"] * len(keys)), at=to_instants(cases.decided),
        received_at=to_instants(cases.told), **{"value:answer": decided},
    )  # fmt: skip
    named_places = frame(
        NAMED_PLACE_SCHEMA, cases.told < DAYS, case_key=keys, site=names[cases.cell],
        occurred_at=to_instants(cases.occurred), received_at=to_instants(cases.told),
        has_time=pl.Series([True] * len(keys)), may_move=pl.Series([True] * len(keys)), **draws,
    )  # fmt: skip
    return RecordFrames(
        named_places=named_places,
        cases=case_rows,
        predictions=prediction_rows,
        decisions=decision_rows,
        outcomes=pl.DataFrame(schema=build_outcomes_schema(("answer",))),
        rejected=pl.DataFrame(schema=REMARK_SCHEMA),
        notes=pl.DataFrame(schema=REMARK_SCHEMA),
        row_counts={},
    )


def list_commands(cases: SentCases) -> list[BeginNextAttempt]:
    """Return what operators do."""
    return [
        BeginNextAttempt(
            at=START + timedelta(days=day),
            by=Actor("ana"),
            cells=(Cell(name_site(number), "always"),),
            version="v1",
            reason="its box was offline",
        )
        for number, day in cases.begun_anew.items()
    ]


def find_first_days(sending: Sending, seed: int) -> np.ndarray:
    """Return by cell on which day it was first raised or widened, infinite if never."""
    cases = SentCases.draw(1_000 + seed, sending.truth, sample=sending.sample)
    sending.change(cases)
    raised = _replay(cases, sending, ProposalRaised, None)
    if sending.then is None:
        return raised
    sending.then(cases, raised)
    return _replay(cases, sending, Widened, timedelta(days=1))


def _replay(
    cases: SentCases,
    sending: Sending,
    kind: type[ProposalRaised | Widened],
    approval_delay: timedelta | None,
) -> np.ndarray:
    request = ReplayRequest(
        policy=Path(), sources=NO_FILES, options=ReplayOptions(approval_delay=approval_delay)
    )
    first = np.full(CELLS, np.inf)
    try:
        replayed = replay_records(
            request,
            parse_policy(write_policy(sending)),
            build_history(cases),
            commands=list_commands(cases),
        )
    except NothingToReplayError:
        return first
    for event in replayed.result.events:
        if isinstance(event, kind):
            number = int(event.cell.site[1:])
            first[number] = min(first[number], (event.at - START) / timedelta(days=1))
    return first


def main(words: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args(words)
    for title, sendings in TABLES.items():
        sys.stdout.write(f"{title:34} truth  raised  median day\n")
        for sending in sendings:
            if not arguments.names or sending.name in arguments.names:
                days = np.concatenate([find_first_days(sending, s) for s in range(arguments.seeds)])
                sys.stdout.write(_format_row(sending.name, sending.truth, days))
                sys.stdout.flush()
    _print_others(range(min(arguments.seeds, FEW_SEEDS)), arguments.names)


def _print_others(seeds: range, names: list[str]) -> None:
    from benchmarks import gain_senders, served_senders

    sys.stdout.write(f"{'should not open, in a service':34} truth  raised  median day\n")
    for served in served_senders.SENDINGS:
        if not names or served.name in names:
            days = [served_senders.find_served_days(served, seed, CELLS) for seed in seeds]
            sys.stdout.write(_format_row(served.name, served.truth, np.concatenate(days)))
            sys.stdout.flush()
    sys.stdout.write(f"{'no gain':34}  gain  raised  median day\n")
    for losing in gain_senders.SENDINGS:
        if not names or losing.name in names:
            days = [gain_senders.find_gain_days(losing, seed) for seed in seeds]
            sys.stdout.write(_format_row(losing.name, losing.effect, np.concatenate(days)))
            sys.stdout.flush()


def _format_row(name: str, truth: float, days: np.ndarray) -> str:
    median = f"{np.median(days):.1f}" if np.isfinite(np.median(days)) else "–"
    share = np.isfinite(days).mean()
    return f"  {name:32} {truth:5.2f}  {share:6.3f}  {median:>10}\n"


if __name__ == "__main__":
    main()
