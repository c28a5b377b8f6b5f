"""The shape of a policy file: every key, its kind, its default and a sentence about it.

This is the one description of the format. The loader validates against it, the JSON Schema is
generated from it, and `docs/policy.md` is compared with it. Defaults stand as a file would write
them. What needs more than one field to judge is in `policy_faults`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import JsonSchemaValue

from rollout.formats.policy_fields import (
    Clock,
    Count,
    Country,
    Day,
    Distance,
    Duration,
    Flag,
    Groups,
    Id,
    Judges,
    Kept,
    Label,
    Name,
    Number,
    Often,
    Ordinal,
    Pattern,
    Position,
    Price,
    Raw,
    Risk,
    Share,
    Span,
    Tick,
    Words,
    Zone,
)

Measure = Literal[
    "agreement",
    "recall",
    "precision",
    "cost",
    "parity",
    "override",
    "action_change",
    "missing",
    "unaudited",
    "latency_p95",
    "failures",
    "heartbeat",
    "harm",
]


def key(default: Any = ..., **described: Any) -> Any:
    """Describe a key. Its default stands as the file would have it, and is read like the file."""
    return Field(default, **described)


class Shape(BaseModel):
    """A mapping of the file: unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Selecting(Shape):
    """A row that speaks of some cells; without a selector of all."""

    sites: list[Pattern] | None = key(
        None, description="Sites meant: names, or patterns with *. Default: all."
    )
    windows: list[Pattern] | None = key(
        None, description="Windows meant: names, or patterns with *. Default: all."
    )


class CharterShape(Shape):
    """Why the rollout exists and whom it touches; shown with every proposal."""

    objective: Words | None = key(None, description="What the model is to achieve.")
    affected: list[Words] | None = key(None, description="Who is touched by its decisions.")
    if_it_works_very_well: Words | None = key(
        None, description="What then happens to the people and skills around it."
    )
    worst_case: Words | None = key(None, description="The worst that it could do.")
    feedback: Words | None = key(
        None,
        description="How actions shape later cases. With it every stage where the model decides "
        "keeps a blind share.",
    )
    cost_in: Words = key("points", description="The unit of all costs.")


class NumberShape(Shape):
    """The range of a lever that is a number."""

    unit: Words = key(alias="in", description="Unit of the number.", examples=["EUR"])
    low: Number = key(alias="from", description="Smallest number acted on.", examples=["1"])
    high: Number = key(alias="to", description="Largest number acted on.", examples=["500"])
    tolerance: Distance = key(
        description="Model and person agree within it: 5% of the person's number, or plain.",
        examples=["5%"],
    )


class CostShape(Shape):
    """One row of a lever's costs; the first that fits counts."""

    did: Words | None = key(None, description="Action of the model. Default: any.")
    right: Words | None = key(None, description="Action that was right. Default: any.")
    under: Distance | None = key(None, description="The model's number lies further below.")
    over: Distance | None = key(None, description="The model's number lies further above.")
    off: Distance | None = key(None, description="The model's number lies further away.")
    cost: Price = key(description="Cost, in the charter's cost_in.", examples=["1"])


class LeverShape(Shape):
    """One thing that is decided for each case."""

    id: Name = key(description="Name of the lever.", examples=["alarm"])
    labels: list[Label] | None = key(
        None, min_length=1, description="The answers that there are, in a fixed order."
    )
    number: NumberShape | None = key(None, description="Instead of labels: a number's range.")
    actions: dict[str, Words] | None = key(
        None, description="The action that each label leads to. Default: the label itself."
    )
    costs: list[CostShape] | None = key(
        None,
        min_length=1,
        description="Cost of a wrong action; the first row that fits. Default: 1 for any.",
    )
    answer_within: Span | None = key(
        None, description="How long an answer is of use. Default: no limit."
    )
    unanswered: Words | None = key(
        None, description="Action taken when no person answers in that time."
    )


def _named(given: Any) -> Any:
    return {"id": given} if isinstance(given, str) else given


def _or_name(schema: JsonSchemaValue) -> None:
    shape = {key: schema.pop(key) for key in list(schema) if key not in {"description", "title"}}
    schema["anyOf"] = [{"type": ["string", "number"]}, shape]


class SiteShape(Shape):
    """A place with its clock; a name alone is enough."""

    model_config = ConfigDict(json_schema_extra=_or_name)

    id: Name = key(description="Name of the site, as records write it.", examples=["creek"])
    place: Position | None = key(None, description="Latitude and longitude, for the sun.")
    timezone: Zone | None = key(None, description="Default: the rollout's timezone.")
    country: Country | None = key(None, description="Default: the rollout's country.")
    wave: Ordinal = key("1", description="Which wave the site belongs to.")
    lease: Span | None = key(
        None, description="Within which time a stop reaches it. Default: the rollout's lease."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_name_alone(cls, given: Any) -> Any:
        return _named(given)


class WindowShape(Shape):
    """A recurring time; the first window that fits takes a case."""

    id: Name = key(description="Name of the window.", examples=["night"])
    hours: Words = key("24/7", description="Opening hours in OpenStreetMap's syntax.")
    when: dict[str, list[Words]] | None = key(
        None, min_length=1, description="Attributes that the case must have, with their values."
    )


class StageShape(Shape):
    """A rung of the ladder above shadow."""

    id: Name = key(description="Name of the stage.", examples=["supervised"])
    blind: Share = key("0%", description="Share of units that people decide unseen.")
    audit: Share | None = key(
        None,
        description="The model decides, and this share of it is judged blind afterwards. "
        "Without it a person confirms.",
    )
    lasts: Span = key("90d", description="Length of a grant.")


class EvidenceShape(Shape):
    """What counts as one record, and how long verdicts are waited for."""

    unit: Literal["case", "episode"] = key(
        description="What is counted once: episode where cases come in bursts.",
        examples=["case"],
    )
    episode_span: Span | None = key(
        None, description="Cases of one site within it are an episode where none is named."
    )
    grace: Duration = key("24h", description="How long a verdict is waited for.")
    missing_at_most: Share = key("5%", description="More units without a verdict hold gates.")
    verdicts: Judges = key("1", description="Blind people who judge a unit: 1, 3 or 5.")
    second_verdict: Share = key(
        "0%", description="Share of units for which a second blind person is asked."
    )
    confidence_floor: Share | None = key(
        None, description="Less sure cases stay with people. Default: no floor."
    )
    outside: Literal["unknown", "blind"] = key(
        "unknown", description="Whether verdicts made elsewhere count as blind."
    )
    min_reviewer_agreement: Share | None = key(
        None, description="Verdicts of reviewers below it are no evidence. Default: no limit."
    )


class ConditionShape(Shape):
    """A measure with its line."""

    measure: Measure = key(description="What is looked at.", examples=["agreement"])
    at_least: Raw | None = key(None, description="The line, for agreement and its kin: 95%.")
    at_most: Raw | None = key(None, description="The line, for costs, counts and spans.")
    label: Words | None = key(None, description="For recall and precision, or a named harm.")
    lever: Name | None = key(None, description="Which lever, where there are several.")
    action: Words | None = key(None, description="For action_change.")


class MinimumShape(Shape):
    """What a gate asks for beside evidence, since the cell entered the stage below."""

    units: Count = key("100", description="Judged units.")
    days: Count = key("7", description="Local days with a unit.")
    reviewers: Count = key("1", description="Different people who judged.")


class GateShape(Selecting):
    """Conditions to widen by one stage."""

    to: Name = key(description="Stage that the gate leads to.", examples=["supervised"])
    require: list[ConditionShape] = key(
        min_length=1,
        description="Conditions; all must hold, with those of the gates below.",
        examples=["[{measure: agreement, at_least: 95%}]"],
    )
    risk: Risk | None = key(
        None,
        description="Chance of ever opening wrongly. Default: 5%, and 1% where the model decides.",
    )
    minimum: MinimumShape = key(default_factory=dict, description="What it asks beside evidence.")
    approvals: Groups = key(
        "2", description="How many operators say yes, or a list of one group per person."
    )


class GuardShape(ConditionShape, Selecting):
    """A condition under which scope narrows, is suspended, or somebody is told."""

    over: Span | None = key(
        None, description="Span that the measure looks back. Default: the measure's own."
    )
    false_alarm_every: Often = key(
        "10000", description="Mean number of units between two false alarms."
    )
    then: Literal["one-stage", "shadow", "suspend", "report"] | None = key(
        None, description="What an alarm does. Default: the measure's own."
    )
    reach: Literal["cell", "site", "rollout"] = key(
        "cell", description="Which cells an alarm narrows."
    )


class LimitShape(Selecting):
    """The highest stage allowed somewhere, or the last day above shadow there."""

    never_above: Name | None = key(None, description="A stage, or shadow.")
    ends: Day | None = key(None, description="Last local day above shadow.")


class WavesShape(Shape):
    """Which sites go next, and after what."""

    stage: Name = key(description="Stage that a wave must hold.", examples=["supervised"])
    hold: Duration = key("7d", description="For how long it must hold it.")
    share: Share = key("100%", description="Share of the wave's cells that must.")
    at_once: Ordinal | None = key(
        None, description="At most so many cells within settle of a widening. Default: all."
    )
    settle: Duration = key("3d", description="How long a widened cell counts as settling.")


class FreezeShape(Selecting):
    """Hours in which nothing widens, in the site's zone."""

    hours: Words = key(
        description="Opening hours in OpenStreetMap's syntax.", examples=["Dec 24-26"]
    )
    reason: Words = key("a freeze", description="Why, in words.")


class ProposalsShape(Shape):
    """How long proposals live."""

    open_for: Span = key("14d", description="Then a proposal without its approvals expires.")
    after_rejection: Duration = key("7d", description="Quiet time after a no.")


class ReportShape(Shape):
    """A report made on schedule."""

    name: Name = key(description="Name of the report.", examples=["morning"])
    every: Literal["day", "week", "month"] = key("day", description="How often.")
    at: Clock = key("07:00", description="Time of day, in the rollout's timezone.")
    view: Literal["operator", "engineer", "auditor"] = key(
        "operator", description="For whom it is written."
    )
    to: list[Words] = key(default_factory=list, description="Channels that it goes to.")


class RetentionShape(Shape):
    """How long case records are kept."""

    cases: Kept = key("kept", description="Age at which case records are purged, or kept.")


class ExpectShape(Shape):
    """The author's guess of the traffic of one cell, for `rollout plan` alone."""

    units_per_day: Price | None = key(None, description="Units of one cell in a day.")
    labels: dict[str, Share] | None = key(
        None, description="Share of units per label, or per lever/label."
    )
    agreement: Share | None = key(None, description="Agreement, as gates would count it.")
    cost: Price | None = key(None, description="Mean cost of a unit, in cost_in.")


class PolicyShape(Shape):
    """A rollout's policy: what may widen, when, on whose word, and what narrows it again."""

    rollout: Id = key(description="Name of the rollout.", examples=["parcel-damage"])
    timezone: Zone = key(
        description="Zone of rollout-wide times, and of sites that name none.",
        examples=["Europe/Vienna"],
    )
    country: Country | None = key(
        None, description="Two letters, for public holidays (PH). Default: none."
    )
    charter: CharterShape = key(default_factory=dict, description="Why, and whom it touches.")
    levers: list[LeverShape] = key(
        min_length=1,
        description="What is decided for each case.",
        examples=["[{id: parcel, labels: [damaged, sound]}]"],
    )
    sites: list[SiteShape] = key(
        min_length=1,
        description="Where. Records of other sites are reported, never evidence.",
        examples=["[ramp-a, ramp-b]"],
    )
    windows: list[WindowShape] | None = key(
        None, min_length=1, description="When. Default: one window, always."
    )
    stages: list[StageShape] = key(
        [{"id": "supervised", "blind": "50%"}, {"id": "autonomous", "audit": "10%"}],
        min_length=1,
        description="The ladder above shadow; a list given replaces the default.",
    )
    evidence: EvidenceShape = key(
        description="What counts as one record.", examples=["{unit: case}"]
    )
    gates: list[GateShape] = key(
        min_length=1,
        description="What widens a cell by one stage; the first that fits counts.",
        examples=["[{to: supervised, require: [{measure: agreement, at_least: 95%}]}]"],
    )
    guards: list[GuardShape] = key(
        default_factory=list,
        description="What narrows; all that fit apply. Missing ones are added: see plan.",
    )
    limits: list[LimitShape] = key(
        default_factory=list, description="How high and how long; all that fit apply."
    )
    waves: WavesShape | None = key(None, description="Which sites go next. Default: all at once.")
    freezes: list[FreezeShape] = key(
        default_factory=list, description="When nothing widens; all that fit apply."
    )
    proposals: ProposalsShape = key(default_factory=dict, description="How long proposals live.")
    takeover: Name = key(
        "same-stage",
        description="Lowest stage of a takeover: same-stage, a stage, or shadow.",
    )
    reports: list[ReportShape] = key(default_factory=list, description="Reports on schedule.")
    slices: list[Words] = key(default_factory=list, description="Attributes that reports slice by.")
    reveal: Literal["never", "after"] = key(
        "never", description="Whether reviewers see the model's answer after their verdict."
    )
    retention: RetentionShape = key(default_factory=dict, description="How long records stay.")
    lease: Span = key("1m", description="Life of an answer about who decides.")
    tick: Tick = key("15m", description="The slot grid; divides a day.")
    observe: Flag = key("false", description="Raise proposals, apply none.")
    expect: ExpectShape = key(default_factory=dict, description="Expected traffic, for plan.")
