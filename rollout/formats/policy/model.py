"""The pydantic model of a policy file; schema and `docs/reference/policy.md` come from it."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, model_validator
from pydantic.json_schema import JsonSchemaValue

from rollout.formats.policy import fields as kinds
from rollout.formats.policy.sections import (
    FamiliarShape,
    ImportShape,
    OutcomeShape,
    PolicySection,
    SourcesShape,
    StageShape,
    VersionShape,
    WavesShape,
    key,
)
from rollout.kernel.measures import MEASURES

if TYPE_CHECKING:
    MeasureName = str
else:
    MeasureName = Literal[tuple(MEASURES)]


class SiteSelection(PolicySection):
    """A row that speaks of some sites; without a selector of all."""

    sites: list[kinds.Pattern] | None = key(
        None, description="Sites meant: names, or patterns with *. Default: all."
    )


class CellSelection(SiteSelection):
    """A row that speaks of some cells; without a selector of all."""

    windows: list[kinds.Pattern] | None = key(
        None, description="Windows meant: names, or patterns with *. Default: all."
    )


class CharterShape(PolicySection):
    """Why the rollout exists and whom it affects; shown with every proposal."""

    objective: kinds.NonEmptyText | None = key(None, description="What the model is to achieve.")
    affected: list[kinds.NonEmptyText] | None = key(
        None, description="Who is affected by its decisions."
    )
    if_it_works_very_well: kinds.NonEmptyText | None = key(
        None, description="What then happens to the jobs and skills around it."
    )
    worst_case: kinds.NonEmptyText | None = key(None, description="The worst that it could do.")
    feedback: kinds.NonEmptyText | None = key(
        None,
        description="How actions shape later cases. With it every stage where the model decides "
        "keeps a blind share.",
    )
    cost_in: kinds.NonEmptyText = key("points", description="The unit of all costs.")


class NumberShape(PolicySection):
    """The range of a lever that is a number."""

    unit: kinds.NonEmptyText = key(alias="in", description="Unit of the number.", examples=["EUR"])
    low: kinds.Number = key(alias="from", description="Smallest number acted on.", examples=["1"])
    high: kinds.Number = key(
        alias="to", description="Largest number acted on; a larger one disagrees.", examples=["500"]
    )
    tolerance: kinds.Distance = key(
        description="Model and human agree within it: 5% of the human's number, or plain.",
        examples=["5%"],
    )


class CostShape(PolicySection):
    """One row of a lever's costs; the first that fits counts."""

    did: kinds.NonEmptyText | None = key(None, description="Action of the model. Default: any.")
    right: kinds.NonEmptyText | None = key(None, description="Action that was right. Default: any.")
    under: kinds.Distance | None = key(None, description="The model is lower by more than this.")
    over: kinds.Distance | None = key(None, description="The model is higher by more than this.")
    off: kinds.Distance | None = key(None, description="The model differs by more than this.")
    cost: kinds.CostValue = key(description="Cost, in the charter's cost_in.", examples=["1"])


class LeverShape(PolicySection):
    """One thing that is decided for each case."""

    id: kinds.Name = key(description="Name of the lever.", examples=["alarm"])
    labels: list[kinds.Label] | None = key(
        None, min_length=1, description="The possible answers, in a fixed order; append new ones."
    )
    many: kinds.Flag = key("false", description="Whether an answer is a set of the labels.")
    overlap: kinds.Overlap = key(
        "100%",
        description="With many: sets agree if they have this share of all their labels in common.",
    )
    number: NumberShape | None = key(None, description="Instead of labels: a number's range.")
    actions: dict[str, kinds.NonEmptyText] | None = key(
        None, description="The action that each label leads to. Default: the label itself."
    )
    costs: list[CostShape] | None = key(
        None,
        min_length=1,
        description="Cost of a wrong action; the first row that fits. Default: 1 for any.",
    )
    answer_within: kinds.PositiveDuration | None = key(
        None, description="How long an answer is of use; later ones disagree. Default: no limit."
    )
    unanswered: kinds.NonEmptyText | None = key(
        None, description="Action if no human answers in that time. Both keys or neither."
    )


def _expand_name(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _allow_name_alone(schema: JsonSchemaValue) -> None:
    object_schema = {
        key: schema.pop(key) for key in list(schema) if key not in {"description", "title"}
    }
    schema["anyOf"] = [{"type": ["string", "number"]}, object_schema]


class SiteShape(PolicySection):
    """A site with its time zone; a name alone is enough."""

    model_config = ConfigDict(json_schema_extra=_allow_name_alone)

    id: kinds.Name = key(description="Name of the site, as records write it.", examples=["creek"])
    place: kinds.Position | None = key(None, description="Latitude and longitude, for the sun.")
    timezone: kinds.Zone | None = key(None, description="Default: the rollout's timezone.")
    country: kinds.Country | None = key(None, description="Default: the rollout's country.")
    wave: kinds.Ordinal = key("1", description="Which wave the site belongs to.")
    lease: kinds.PositiveDuration | None = key(
        None, description="How soon a stop takes effect there. Default: the rollout's lease."
    )
    was: kinds.Name | None = key(None, description="Former id of a renamed site.")
    open: kinds.NonEmptyText | None = key(
        None, description="Hours in which silence counts, as in windows. Default: always."
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_name(cls, value: Any) -> Any:
        return _expand_name(value)


class WindowShape(PolicySection):
    """A recurring time; the first window that fits takes a case."""

    id: kinds.Name = key(description="Name of the window.", examples=["night"])
    hours: kinds.NonEmptyText = key("24/7", description="Opening hours in OpenStreetMap's syntax.")
    when: dict[str, list[kinds.NonEmptyText]] | None = key(
        None, min_length=1, description="Attributes that the case must have, with their values."
    )
    was: kinds.Name | None = key(None, description="Former id of a renamed window.")


class EvidenceShape(PolicySection):
    """What counts as one unit, and how long to wait for decisions."""

    unit: Literal["case", "episode"] = key(
        description="What is counted once: episode where cases come in bursts (video).",
        examples=["case"],
    )
    episode_span: kinds.PositiveDuration | None = key(
        None,
        description="Without named episodes: cases of a site in one interval this long are one.",
    )
    grace: kinds.Duration = key(
        "24h", description="Wait for a human decision; without one the unit disagrees."
    )
    missing_at_most: kinds.Share = key(
        "5%",
        description="A larger share of missing units holds gates: undecided, received late, or not"
        " predicted before the decision.",
    )
    releases: kinds.Ordinal | None = key(
        None,
        description="Planned attempts of a cell in a year: they share 80 % of each risk equally.",
    )
    verdicts: kinds.ReviewerCount = key("1", description="Blind decisions per unit: 1, 3 or 5.")
    second_verdict: kinds.Share = key(
        "0%", description="Share of units that get a second blind decision."
    )
    confidence_floor: kinds.Share | None = key(
        None, description="Humans decide cases of lower confidence, at every stage. Default: none."
    )
    confidence_floors: kinds.ConfidenceFloors | None = key(
        None, description="Floors that open one by one, such as [0%, 80%, 97%]."
    )
    outside: Literal["unknown", "blind"] = key(
        "unknown",
        description="Exposure of decisions made elsewhere that name none; only blind is evidence.",
    )
    sources: SourcesShape = key(
        default_factory=dict,
        description="From where decisions are evidence. Default: reviews made here and imports.",
    )
    familiar: FamiliarShape | None = key(
        None,
        description="Humans decide cases with unfamiliar attribute values. Default: off.",
    )


class ConditionShape(PolicySection):
    """A measure with its threshold."""

    measure: MeasureName = key(description="What is looked at.", examples=["agreement"])
    at_least: kinds.RawText | None = key(
        None, description="Threshold, for agreement, recall, precision: 95%; for gain: 0."
    )
    at_most: kinds.RawText | None = key(None, description="Threshold, for costs, counts and spans.")
    label: kinds.NonEmptyText | None = key(
        None, description="For recall and precision, or a named harm."
    )
    lever: kinds.Name | None = key(None, description="Which lever, where there are several.")
    action: kinds.NonEmptyText | None = key(None, description="For action_change.")
    of: kinds.Name | None = key(
        None,
        description="For gain: which of the outcomes. For agreement and recall in gates: planted, "
        "for the planted cases alone; else they are about the cases that occur.",
    )
    slice: kinds.NonEmptyText | None = key(
        None,
        description="For agreement: an attribute, each of whose values must pass by itself. For "
        "drift: whose shares are watched; without it, those of the human decisions. Cases without "
        "the attribute have the value (none).",
    )


class MinimumShape(PolicySection):
    """What a gate asks for beside evidence, since the cell entered the stage below."""

    units: kinds.Count = key("100", description="Units with a human decision.")
    days: kinds.Count = key("7", description="Local days with a unit.")
    reviewers: kinds.Count = key("1", description="Different reviewers.")


class GateShape(CellSelection):
    """Conditions to widen by one stage."""

    to: kinds.Name = key(description="Stage that the gate leads to.", examples=["supervised"])
    require: list[ConditionShape] = key(
        min_length=1,
        description="Conditions; all must hold, with those of the gates below.",
        examples=["[{measure: agreement, at_least: 95%}]"],
    )
    risk: kinds.Risk | None = key(
        None,
        description="Chance of ever opening wrongly. Default: 5%, and 1% where the model decides.",
    )
    minimum: MinimumShape = key(default_factory=dict, description="What it needs besides evidence.")
    approvals: kinds.Groups = key(
        "2",
        description="Number of operators who approve, or a list with a group for each approver.",
    )


class GuardShape(ConditionShape, SiteSelection):
    """A condition under which scope narrows or is suspended, or an incident is reported."""

    over: kinds.PositiveDuration | None = key(
        None,
        description="Span of harm and of figures shown; a suspension lasts no less. "
        "Default: the measure's own.",
    )
    false_alarm_every: kinds.FalseAlarmInterval | None = key(
        None,
        description="Mean units, or for latency_p95, failures, missing, unaudited and heartbeat "
        "time, between two false alarms, at least. Default: 10000 units, and 1y.",
    )
    quiet_days: kinds.QuietShare | None = key(
        None,
        description="For heartbeat: share of the usual traffic on quiet days, such as 1/3 or 33%. "
        "Default: 1/2.",
    )
    then: Literal["one-stage", "shadow", "suspend", "report"] | None = key(
        None, description="What an alarm does. Default: the measure's own."
    )
    reach: Literal["cell", "site", "rollout"] = key(
        "cell", description="Which cells an alarm narrows."
    )
    holds: Literal["site", "rollout"] = key(
        "rollout",
        description="For harm: where nothing widens until an operator has acknowledged it. The "
        "version in alarm widens nowhere.",
    )


class LimitShape(CellSelection):
    """The highest stage allowed somewhere, or the last day above shadow there."""

    never_above: kinds.Name | None = key(None, description="A stage, or shadow.")
    ends: kinds.Day | None = key(None, description="Last local day above shadow.")


class FreezeShape(SiteSelection):
    """Hours in which nothing widens, in the site's zone."""

    hours: kinds.NonEmptyText = key(
        description="Opening hours in OpenStreetMap's syntax.", examples=["Dec 24-26"]
    )
    reason: kinds.NonEmptyText = key("a freeze", description="Why, for display.")


class ReportShape(PolicySection):
    """A report made on schedule."""

    name: kinds.Name = key(description="Name of the report.", examples=["morning"])
    every: Literal["day", "week", "month"] = key("day", description="How often.")
    at: kinds.Clock = key("07:00", description="Time of day, in the rollout's timezone.")
    view: Literal["operator", "engineer", "auditor"] = key(
        "operator", description="For whom it is written."
    )
    to: list[kinds.NonEmptyText] = key(
        default_factory=list, description="Channels that it goes to."
    )


class RetentionShape(PolicySection):
    """How long case records are kept."""

    cases: kinds.RetentionAge = key(
        "kept", description="Age at which case records are purged, or kept."
    )


class ExpectShape(PolicySection):
    """The author's guess of the traffic of one cell, for `rollout plan` alone."""

    units_per_day: kinds.CostValue | None = key(
        None, description="Units of one cell in a day on which it is open."
    )
    labels: dict[str, kinds.Share] | None = key(
        None, description="Share of units per label, or per lever/label."
    )
    agreement: kinds.Share | None = key(None, description="Agreement, as gates would count it.")
    cost: kinds.CostValue | None = key(None, description="Mean cost of a unit, in cost_in.")


class PolicyShape(PolicySection):
    """Policy of a rollout: what can widen, when, with whose approval, and what narrows it."""

    rollout: kinds.Identifier = key(description="Name of the rollout.", examples=["parcel-damage"])
    timezone: kinds.Zone = key(
        description="Zone of rollout-wide times, and of sites that name none.",
        examples=["Europe/Vienna"],
    )
    country: kinds.Country | None = key(
        None, description="Two letters, for public holidays (PH). Default: none."
    )
    charter: CharterShape = key(
        default_factory=dict, description="Why the rollout exists, and whom it affects."
    )
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
    versions: list[VersionShape] = key(
        default_factory=list, description="Model versions with rules of their own."
    )
    waves: WavesShape | None = key(None, description="Which sites go next. Default: all at once.")
    freezes: list[FreezeShape] = key(
        default_factory=list, description="When nothing widens; all that fit apply."
    )
    takeover: kinds.Name = key(
        "same-stage",
        description="Lowest stage of a takeover: same-stage, a stage, or shadow.",
    )
    outcomes: list[OutcomeShape] = key(
        default_factory=list, description="What becomes of cases, as a value: for gain."
    )
    reports: list[ReportShape] = key(default_factory=list, description="Reports on schedule.")
    slices: list[kinds.NonEmptyText] = key(
        default_factory=list,
        description="Attributes that reports slice by, and whose new values timelines mark.",
    )
    retention: RetentionShape = key(
        default_factory=dict, description="How long case records are kept."
    )
    lease: kinds.PositiveDuration = key(
        "1m", description="How long an assignment is valid; a stop takes effect within it."
    )
    tick: kinds.Tick = key(
        "15m", description="Time between two evaluations; divides a day. No edit changes it."
    )
    observe: kinds.Flag = key(
        "false", description="true raises proposals and applies none: a dress rehearsal."
    )
    expect: ExpectShape = key(default_factory=dict, description="Expected traffic, for plan.")
    imports: list[ImportShape] = key(
        default_factory=list,
        alias="import",
        description="How recorded files are written, for replay, plan and import.",
    )
