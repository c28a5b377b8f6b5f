"""Facts in words."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from math import exp
from string import Formatter
from types import MappingProxyType
from typing import Any, Final

from rollout.kernel.calendar.instants import format_duration
from rollout.kernel.facts import (
    CHANGED_EVIDENCE,
    CLOCK_BACK,
    CLOCKS_APART,
    CORRECTED_CASE,
    CORRECTED_CLOCK,
    CORRECTED_PREDICTION,
    DAYS,
    EDITED_GATE,
    EDITED_LADDER,
    EDITED_POLICY,
    ENDED_GRANT,
    ENDED_PERMIT,
    FAILED_BATCH,
    FAILED_WRITE,
    FEW_OF_VALUE,
    FORBIDDEN,
    IN_ALARM,
    LATER_CASE,
    LATER_PREDICTION,
    LOST_ENTRY,
    LOST_GATE,
    LOST_HEAD,
    LOST_STAGE,
    LOW_CEILING,
    MANY_VALUES,
    MISSING,
    NEW_ERA,
    NEXT_ATTEMPT,
    NO_HOLDER,
    NO_PERMIT,
    NO_PREDICTION,
    NO_UNIT,
    OTHER_ACTION,
    OTHER_ANSWER,
    OTHER_DECIDER,
    OTHER_ERA,
    OTHER_FLOOR,
    OTHER_HOLDER_STAGE,
    OTHER_STEP,
    OTHER_TICK,
    OTHER_VERSION,
    OWN_HOLDER,
    RAISED_FLOOR,
    RECENT_DAYS,
    RECENT_MISSING,
    REPLACED,
    RETIRED,
    REVIEWERS,
    SENDER_AHEAD,
    SPOKEN_AGAINST,
    TURNED,
    UNFAMILIAR_VALUE,
    UNITS,
    UNKNOWN_HEAD,
    UNSURE,
    USER_NARROWED,
    AlarmSubject,
    LooserRule,
    StoredAlarm,
    StoredReading,
    Trigger,
    UnmetRequirement,
    parse_condition,
    parse_facts,
)
from rollout.kernel.measures import Condition, Watch
from rollout.kernel.policy.gates import describe_releases
from rollout.kernel.policy.stages import describe_decided, shorten_content
from rollout.kernel.units import OutcomeRule

MAX_EXPONENT: Final = 700.0


def say_counts(counts: tuple[int, ...]) -> str:
    """Return shares as `successes of records`, other counts as a list.

    >>> say_counts((1820, 8)), say_counts((60, 3, 1))
    ('1,820 of 1,828', '60 3 1')
    """
    if len(counts) == 2:
        return f"{counts[0]:,} of {sum(counts):,}"
    return " ".join(f"{count:,}" for count in counts)


def say_figures(reading: StoredReading, condition: Condition) -> str:
    """Return what was counted, without its evidence."""
    if not condition.population.has_gain:
        return say_counts(reading.counts)
    model, people, missing = reading.counts
    counts = f"{model:,} by the model, {people:,} by people, {missing:,} without outcome"
    if reading.draw_log_e:
        e_value = exp(min(float(reading.draw_log_e), MAX_EXPONENT))
        counts += f", not the arms that were sampled (E {e_value:.3g})"
    return f"{say_gain(reading, condition)}; {counts}" if reading.estimate else counts


def say_gain(reading: StoredReading, condition: Condition) -> str:
    """Return a gain and its bound: `+5.1 EUR a unit so far, at least +1.2 EUR at every look`."""
    outcome = condition.population.outcome
    text = f"{outcome.format_amount(float(reading.estimate))} a unit so far"
    if not reading.bound:
        return text
    return f"{text}, at least {outcome.format_amount(float(reading.bound))} at every look"


def say_reading(reading: StoredReading) -> str:
    """Return a reading as auditors read it.

    >>> facts = {"measure": "agreement", "threshold": "0.95"}
    >>> say_reading(StoredReading(facts, (245, 3), "4.271300", "0.05"))
    'agreement at least 95 %: 245 of 248, log E 4.271300 of 2.995732 (risk 0.05)'
    """
    needed = f"{reading.needed_log_e:.6f} (risk {float(reading.risk):g})"
    return f"{say_measured(reading)}, log E {reading.log_e} of {needed}"


def say_measured(reading: StoredReading) -> str:
    """Return a reading without its evidence: `agreement at least 95 %: 245 of 248`."""
    condition = reading.parse_condition()
    return f"{condition}: {say_figures(reading, condition)}"


def say_rounded(reading: StoredReading) -> str:
    """Return a reading with rounded figures; the ledger has all digits."""
    return (
        f"{say_measured(reading)}, log E {float(reading.log_e):.2f}, needed"
        f" {reading.needed_log_e:.2f} (risk {float(reading.risk) * 100:.3g} %)"
    )


ALSO_IN_ALARM: Final = "; also in alarm: "


REPEATED_SUSPENSION: Final = "third suspension in 24 h"


def say_alarms(alarms: Iterable[StoredAlarm]) -> str:
    """Return the alarms of a cell, the first as the cause; "" if there are none."""
    return ALSO_IN_ALARM.join(map(say_alarm, alarms))


def say_alarm(alarm: StoredAlarm) -> str:
    """Return a guard's condition and what it counted.

    >>> from rollout.kernel.measures import MEASURES
    >>> say_alarm(StoredAlarm(Condition(MEASURES["agreement"], 0.9), against=15, records=1820))
    'agreement at least 90 %: 15 of 1,820 blind decisions disagree'
    """
    if alarm.suspensions:
        return REPEATED_SUSPENSION
    subject, before = alarm.subject, None if alarm.subject is None else alarm.subject.share
    share = "" if before is None else f" (was {before * 100:.3g} %)"
    name = alarm.condition.subject if subject is None else _say_value(subject)
    return f"{alarm.condition.describe(name + share)}: {say_against(alarm)}"


def say_against(alarm: StoredAlarm) -> str:
    """Return what an alarm's guard counted: `15 of 1,820 blind decisions disagree`."""
    condition, against = alarm.condition, alarm.against
    if alarm.suspensions:
        return REPEATED_SUSPENSION
    if condition.measure.watch is Watch.SIGNS:
        return f"no heartbeat for {_say_silence(against)} in opening hours"
    if condition.population.has_gain:
        outcome = condition.population.outcome
        amount = outcome.format_amount(against * 1e-6 * outcome.span)
        return f"{amount} a unit so far, over {alarm.records:,} units"
    subject = condition.subject if alarm.subject is None else _say_value(alarm.subject)
    counted = condition.measure.describe_counted(subject, condition.threshold_text)
    return f"{against:,} of {alarm.records:,} {counted}"


def _say_value(subject: AlarmSubject) -> str:
    if not subject.value:
        return f"{subject.attribute} with a value that the reference lacks"
    return f"{subject.moved} {subject.attribute}={subject.value}".lstrip()


def _say_silence(minutes: int) -> str:
    """Return minutes in at most two units.

    >>> _say_silence(31), _say_silence(51 * 60 + 5)
    ('31 min', '2 d 3 h')
    """
    days, hours = divmod(minutes // 60, 24)
    amounts = ((days, "d"), (hours, "h"), (minutes % 60, "min"))
    first = next((i for i, (amount, _) in enumerate(amounts) if amount), len(amounts) - 1)
    parts = [f"{amount} {unit}" for amount, unit in amounts[first : first + 2] if amount]
    return " ".join(parts) or "0 min"


REQUIREMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        UNITS: "{actual:,} of {needed:,} decided unit{s}",
        REVIEWERS: "{actual:,} of {needed:,} reviewer{s}",
        DAYS: "{actual:,} of {needed:,} day{s}",
        MISSING: "{actual:,} of {needed:,} units are missing (at most {share:g} % allowed)",
        RECENT_MISSING: "{actual:,} of {needed:,} units of the last {days} days are missing (at"
        " most {share:g} % allowed)",
        NO_UNIT: "no unit for {subject}",
        MANY_VALUES: "{subject} has {actual:,} values, and at most {needed} can be slices; slice by"
        " an attribute with fewer values",
        FEW_OF_VALUE: "{actual:,} of {needed:,} decided unit{s} with {subject}; wait for more, or"
        " leave this value to humans with `when` in the window",
    }
)


def say_requirement(requirement: UnmetRequirement) -> str:
    """Return what a gate lacks.

    >>> say_requirement(UnmetRequirement(REVIEWERS, 0, 1))
    '0 of 1 reviewer'
    >>> say_requirement(UnmetRequirement(MISSING, 533, 925, share_at_most=0.05))
    '533 of 925 units are missing (at most 5 % allowed)'
    """
    return REQUIREMENTS[requirement.kind].format(
        actual=requirement.actual,
        needed=requirement.needed,
        s="" if requirement.needed == 1 else "s",
        subject=requirement.subject,
        share=requirement.share_at_most * 100,
        days=RECENT_DAYS,
    )


VOID_CAUSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        TURNED: "the evidence has turned",
        LOST_GATE: "the policy has no gate for it any more",
        EDITED_GATE: "the policy's gate was edited",
        LOW_CEILING: "it lies above the cell's ceiling now",
        RETIRED: "the version is retired",
        LOST_STAGE: "the cell no longer holds the stage",
        OTHER_VERSION: "another version acts in the cell now",
        OTHER_FLOOR: "the cell's confidence floor has changed",
        OTHER_STEP: "the cell's stage is no longer the one below",
        NO_HOLDER: "no version acts in the cell any more",
        OWN_HOLDER: "the version acts in the cell already",
        RAISED_FLOOR: "an alarm raised the confidence floor of the acting version",
        OTHER_HOLDER_STAGE: "the acting version's stage has changed",
        REPLACED: "{about} took effect in the cell",
        EDITED_POLICY: "the policy was edited",
        EDITED_LADDER: "the policy's ladder was edited",
        OTHER_TICK: "tick: {about} stays as it is, since evidence is counted by its slots; write"
        " tick: {about}, or start a rollout of another name",
        CHANGED_EVIDENCE: "its evidence was not what was counted",
        ENDED_GRANT: "{cell}: the grant of {about} has ended",
        SPOKEN_AGAINST: "{incidents} spoke against {about} after it was raised",
        USER_NARROWED: "{by} narrowed {cell}",
        NEXT_ATTEMPT: "{by} began the next attempt",
        NEW_ERA: "era {about} began",
        CORRECTED_CLOCK: "the rollout's time went back to the clock's",
        IN_ALARM: "{cell} is narrowed: {alarms}",
    }
)


def say_void(
    cause: str,
    about: str = "",
    by: str = "",
    cell: object = None,
    incidents: Iterable[str] = (),
    alarms: Iterable[StoredAlarm] = (),
) -> str:
    """Return why a proposal is void.

    >>> say_void(ENDED_GRANT, "supervised", cell="creek · day")
    'creek · day: the grant of supervised has ended'
    """
    return VOID_CAUSES[cause].format(
        about=about,
        by=by,
        cell=cell,
        incidents=" and ".join(incidents),
        alarms=say_alarms(alarms),
    )


LOST: Final = (
    " revision {revision}, which this ledger lost: a backup was restored or a failover lost rows;"
    " see what was lost, stops above all, then resume"
)
TRIGGERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        FORBIDDEN: "{acted}{later:later}the scope did not allow it then, nor does a lease",
        NO_PERMIT: "{acted}no permit of ours names this case and version",
        ENDED_PERMIT: "{acted}its permit had ended",
        OTHER_ERA: "{acted}its permit is of another era: the database was restored in between",
        OTHER_DECIDER: "{acted}its permit says that a {decider} decides",
        NO_PREDICTION: "{acted}{later:later}no prediction of this version was stored before the"
        " action or with it",
        UNSURE: "{acted}{later:later}the predicted confidence is below the policy's floor",
        OTHER_ACTION: "{acted}{later:later}it is not the policy's action for the predicted answer",
        OTHER_ANSWER: "{acted}{later:later}another name of the version answered the case otherwise",
        CLOCKS_APART: "clocks disagree: {clocks:clocks}; set them right and restart; if one was"
        " over 12 h behind, run `rollout doctor --rebuild --repair` before",
        CLOCK_BACK: "the clock shows {clock}, but the last entry or tick is of {latest}; if the"
        " clock is right acknowledge this, else set it right first",
        SENDER_AHEAD: "{about} dated an action {dated} and sent it by {received}: set its clock, or"
        " let it count from the answer's `issued_at`",
        UNKNOWN_HEAD: "{about} has sent revision {revision} with a hash that is not here, and no"
        " code of this service proves that it was: humans decide for it; see where it got the head,"
        " and delete its stored head if the restore was wanted",
        LOST_HEAD: "{about:client} has seen" + LOST,
        LOST_ENTRY: "a replica has read" + LOST,
        FAILED_WRITE: "a write{ledger:ledger} failed, last seen at {at}: {reason}",
        FAILED_BATCH: "a write of {rows} rows with `{holds}`{ledger:ledger} failed, last seen at"
        " {at}: {reason}",
        UNFAMILIAR_VALUE: "unfamiliar: {about}, {units} unit{units:s} judged today, {agreed} of"
        " {judged} agree",
    }
)
LATER_RECORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "",
        LATER_CASE: "its case came later: ",
        CORRECTED_CASE: "its case was corrected later: ",
        LATER_PREDICTION: "its prediction came later: ",
        CORRECTED_PREDICTION: "its prediction was corrected later: ",
    }
)
CLOCKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "wall": "the wall clock",
        "boot": "the seconds since start",
        "database": "the database's clock",
    }
)


def say_cause(
    reason: str,
    trigger: Trigger | None = None,
    alarms: Iterable[StoredAlarm] = (),
    about: str = "",
    version: str = "",
) -> str:
    """Return why an incident opened or cells were stopped, by what their entry says.

    `reason` is the text of others: a user's, a database's, or what a check of evidence found.

    Raises:
        LookupError, TypeError, ValueError: the trigger's kind or one of its values is none.

    >>> say_cause("", Trigger(FORBIDDEN, {"later": "case"}), about="c1", version="v7")
    'v7 acted on c1: its case came later: the scope did not allow it then, nor does a lease'
    """
    if trigger is None:
        return say_alarms(alarms) or reason
    acted = f"{version} acted on {about}: " if about else ""
    values = {"about": about, "acted": acted, "reason": reason, "later": "", "ledger": ""}
    return _FactFormatter().vformat(TRIGGERS[trigger.kind], (), values | trigger.values)


LOOSER_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "all-cases": "cases of every account that may send them count for gates",
        "all-outcomes": "outcomes of every account that may send them are evidence",
        "answer-within": "lever {lever}: a later answer of the model counts",
        "approvals": "{stage} is approved by {new}, not {old}",
        "at-once": "more cells may be widened at once",
        "audit": "{stage}: fewer audits, {new:%}",
        "bins": "{attribute} has other bins, so other values are familiar",
        "blind": "{stage}: a smaller blind share, {new:%}",
        "cases": "cases that {account} sends count for gates",
        "ceiling": "{new} is allowed, where {old} was the most",
        "content": "{version} is declared to have the content {content:digest}",
        "cost": "lever {lever}: some wrong action costs less than before",
        "country": "silence of {site} counts on other holidays, those of {country}",
        "days": "{stage} requires {new} days instead of {old}",
        "decides": "at {stage} the model decides, where a human confirmed",
        "decisions": "decisions that {account} sends for {reviewers} are evidence",
        "episode-span": "episodes are cut otherwise, so bursts count more or less often",
        "expect": "guards on shares of records expect more traffic, so at first they alarm later",
        "familiar-line": "less agreement makes a value familiar: {new:%} instead of {old:%}, first"
        " in {cell}",
        "familiar-units": "other judged units make a value familiar: {new} instead of {old}",
        "fewer-floors": "fewer confidence floors share the risk, so each has more: 1/{new} instead"
        " of 1/{old}",
        "files-blind": "imported decisions count as blind where their file does not say",
        "floors": "the model may decide sure cases where others are not good enough: floors"
        " {floors}",
        "former-site": "site {site} is new, and was {was}",
        "freeze": "the freeze for {reason} ({hours}) is gone or moved",
        "gate": "a gate to {stage}, where none was",
        "grace": "a unit closes {new:time} after its case, instead of {old:time}: other decisions"
        " and predictions count",
        "guard": "the guard on {old:condition} ({then}) is looser: {new:condition}, {new_then}",
        "labels": "lever {lever}: an answer is one label, where it was a set of labels",
        "largest-cost": "guards on cost may alarm later: the largest cost is {new}, not {old}",
        "lasts": "{stage}: a grant lasts longer, {new:time}",
        "lease": "a stop reaches {site} later: its answers are valid for {new:time}",
        "left-wave": "the next wave no longer waits for {sites}",
        "lever": "lever {lever} is new: the model would decide it too",
        "lowest-floor": "another confidence floor: the model decides and is judged by other cases",
        "missing": "more units may lack a decision: {new:%}",
        "missing-outcomes": "more outcomes of {outcome} may be missing: {new:%}",
        "new-labels": "lever {lever} has new labels, or actions of them: {labels}",
        "no-lever": "lever {lever} is gone, and units can agree without it",
        "no-condition": "{stage} no longer requires {condition:condition}",
        "no-guard": "the guard on {old:condition} ({then}) is gone",
        "no-trial-end": "the trial goes on without end, not to {old}",
        "no-waves": "sites no longer wait for an earlier wave",
        "number": "lever {lever}: another unit, or a wider range or tolerance of its number",
        "observe": "proposals are applied, where they were only raised",
        "open": "silence of {site} counts in other hours: {hours}",
        "other-wave": "another wave to wait for: {sites}",
        "outcome": "outcome {outcome} is measured otherwise: {new:outcome}, instead of"
        " {old:outcome}",
        "outcomes": "outcomes that {account} sends are evidence",
        "outside-blind": "decisions made elsewhere count as blind",
        "overlap": "lever {lever}: sets agree from an overlap of {new:%} on, where it was {old:%}",
        "policy-approvals": "a looser policy is approved by {new}, not {old}",
        "releases": "from each cell's next year on, {new:releases}, instead of {old:releases}",
        "retention": "records go after {new:time}: no guard sees a harm that is told of them later",
        "reviewers": "{stage} requires {new} reviewers instead of {old}",
        "risk": "{stage} opens at a risk of {new:%} instead of {old:%}",
        "rung": "{stage} is no longer above {removed}",
        "sample": "{version} runs on fewer cases, {new:%} of them",
        "sets": "lever {lever}: an answer is a set of labels, where it was one label",
        "share": "{stage}: the model decides a larger share of units, {new:%}",
        "share-decides": "at {stage} the model decides {share:drawn}, where a human confirmed",
        "site": "site {site} is new",
        "takeover": "a challenger may take over at a lower stage, {stage}",
        "threshold": "{stage} requires {new:condition} instead of {old:threshold}",
        "tick": "guards look less often, every {new:time}",
        "trial-end": "the trial goes on to {new}, not to {old}",
        "unanswered": "lever {lever}: another action without an answer in time",
        "unfamiliar-cases": "the model decides cases with unfamiliar attribute values",
        "unfamiliar-values": "the model decides cases with unfamiliar values of {attribute}",
        "unit": "a unit is each {new}, not each {old}: bursts count more or less often",
        "units": "{stage} requires {new} units instead of {old}",
        "verdicts": "another number of reviewers judges a unit: {new} instead of {old}",
        "vouched": "what {account} sends up to {within:time} after a case counts as made before"
        " the decision",
        "wave-end": "after {day} the next wave no longer waits for {sites}",
        "wave-hold": "the next wave opens sooner, or after fewer cells",
        "wave-stage": "the next wave waits for a lower stage, {stage}",
        "windows": "windows or their clocks changed: hours come under other rules than before",
    }
)
FACT_VALUES: Final[Mapping[str, Callable[[Any], str]]] = MappingProxyType(
    {
        "": lambda value: ", ".join(value) if isinstance(value, list) else str(value),
        "%": lambda share: f"{float(share) * 100:g} %",
        "client": lambda about: about or "a client",
        "clocks": lambda times: ", ".join(
            f"{CLOCKS[name]} {datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}Z"
            for name, at in times.items()
        ),
        "condition": lambda facts: str(parse_condition(facts)),
        "digest": shorten_content,
        "drawn": lambda share: describe_decided(float(share)),
        "later": LATER_RECORDS.__getitem__,
        "ledger": lambda ledger: f" to the {ledger} ledger" if ledger else "",
        "outcome": lambda facts: _say_outcome(parse_facts(OutcomeRule, facts)),
        "releases": describe_releases,
        "s": lambda count: "" if count == 1 else "s",
        "threshold": lambda facts: parse_condition(facts).threshold_text,
        "time": lambda seconds: format_duration(timedelta(seconds=float(seconds))),
    }
)
"""How the values of a sentence are said, by what follows their names in it."""


class _FactFormatter(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        """Return a value as its sentence has it."""
        return FACT_VALUES[format_spec](value)


def say_looser(looser: LooserRule) -> str:
    """Return what an edit of a policy loosens, and where.

    Raises:
        LookupError, TypeError, ValueError: its kind or one of its values is none.

    >>> say_looser(LooserRule("audit", {"stage": "autonomous", "new": "0.05"}))
    'autonomous: fewer audits, 5 %'
    """
    text = _FactFormatter().vformat(LOOSER_RULES[looser.kind], (), looser.values)
    more = f" and {looser.others} more cells" if looser.others else ""
    return text + (f", in {', '.join(map(str, looser.cells))}{more}" if looser.cells else "")


def say_loosens(loosens: Iterable[LooserRule]) -> str:
    """Return all that an edit of a policy loosens."""
    return "; ".join(map(say_looser, loosens))


def _say_outcome(outcome: OutcomeRule) -> str:
    unit = f" {outcome.unit}" if outcome.unit else ""
    return (
        f"{outcome.low:g} to {outcome.high:g}{unit}, {outcome.better} is better, closed after"
        f" {format_duration(outcome.closes)}"
    )
