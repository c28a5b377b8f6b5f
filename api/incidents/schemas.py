"""Schemas of the cause of an incident."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pydantic.config import JsonDict

from api.schema_forms import LATER, NOON, AttributeForm
from rollout.features.incidents.incidents import RELOAD_SECONDS

if TYPE_CHECKING:
    from rollout.features.incidents.incident_causes import LoadedCause
    from rollout.features.reports.figures.incident_cause import (
        IncidentCause,
        ValueFinding,
    )
    from rollout.live.work.user_runs import UserRun


class CauseCounts(AttributeForm):
    """Judged cases and those in which the version differs, with its 95 % interval."""

    differing: int = Field(validation_alias="count")
    judged: int = Field(validation_alias="n")
    share: float | None = Field(validation_alias="rate")
    low: float | None
    high: float | None


class CauseValue(BaseModel):
    """A value's cases against all others of the same time, and before and after the incident.

    The intervals of all values cover together with 95 %.
    """

    source: str = Field(examples=["attribute"])
    name: str = Field(examples=["form"])
    value: str = Field(examples=["new"])
    verdict: Literal["stands-out", "follows", "new", "chance"] = Field(
        description="It can be the cause; stands out, but follows from the cause; is new and can't"
        " be told yet; or could differ by chance."
    )
    chance: float = Field(description="Holm's p-value of Fisher's exact test against the others.")
    differing: int
    judged: int
    low: float
    high: float
    others_differing: int
    others_judged: int
    visible_difference: float | None = Field(
        description="This difference to the others would stand out 8 times in 10; null if none."
    )
    before: CauseCounts
    during: CauseCounts
    after: CauseCounts
    others_before: CauseCounts


class CauseNewValue(AttributeForm):
    """An attribute value that no judged case had before the day of the change."""

    name: str = Field(validation_alias="kind")
    value: str
    since: CauseCounts
    others: CauseCounts


class CauseGap(BaseModel):
    """Values of a property that were not compared; without a number, there was none to compare."""

    source: str
    name: str
    values: int | None


NO_CASES: Final[JsonDict] = {"differing": 0, "judged": 0, "share": None, "low": None, "high": None}
CAUSE: Final[JsonDict] = {
    "site": "lisbon",
    "window": "day",
    "version": "v1",
    "since": NOON,
    "until": LATER,
    "started_at": None,
    "opened_at": None,
    "batch": None,
    "compared": 0,
    "before": NO_CASES,
    "during": {"differing": 3, "judged": 152, "share": 0.0197, "low": 0.0041, "high": 0.0566},
    "after": NO_CASES,
    "values": [],
    "new_values": [],
    "not_compared": [{"source": "attribute", "name": "form", "values": None}],
}


class Cause(BaseModel, json_schema_extra={"example": CAUSE}):
    """Since when and in which cases a version differs around an incident."""

    site: str
    window: str
    version: str
    since: datetime
    until: datetime
    started_at: datetime | None = Field(description="Likeliest begin; null if no rise is likely.")
    opened_at: datetime | None = Field(description="Of the incident; null of a cell or a filter.")
    batch: int | None = Field(description="Judged cases by which your figures move; null is one.")
    compared: int = Field(description="Number of values compared since the begin.")
    before: CauseCounts
    during: CauseCounts
    after: CauseCounts
    values: list[CauseValue] = Field(description="Those that can be the cause first, at least 50.")
    new_values: list[CauseNewValue]
    not_compared: list[CauseGap]


class IncidentCauseAnswer(
    BaseModel, json_schema_extra={"example": {"incident": "I-3", "cause": None}}
):
    """The cause of an incident; null if it names no version in a cell of the policy."""

    incident: str
    cause: Cause | None


class CauseProgress(
    BaseModel, json_schema_extra={"example": {"started_at": NOON, "searches_before": 0}}
):
    """A search for a cause that goes on; the same request later finds its end."""

    started_at: datetime
    searches_before: int = Field(description="Searches of others that end or begin before it.")


SEARCHING: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": CauseProgress, "description": "it takes longer; send the same request again"}
}


def build_cause_progress(run: "UserRun[str, LoadedCause | None]") -> JSONResponse:
    """Return the answer while a search works: 202, and when to ask again."""
    progress = CauseProgress(started_at=run.started_at, searches_before=run.runs_before)
    return JSONResponse(
        progress.model_dump(mode="json"), 202, headers={"Retry-After": str(RELOAD_SECONDS)}
    )


def build_cause_answer(incident: str, loaded: "LoadedCause | None") -> IncidentCauseAnswer:
    """Return the answer for a loaded cause."""
    return IncidentCauseAnswer(
        incident=incident, cause=None if loaded is None else build_cause(loaded)
    )


def build_cause(loaded: "LoadedCause") -> Cause:
    """Return the body of a loaded cause."""
    figures = loaded.cause
    return Cause(
        site=loaded.site,
        window=loaded.window,
        version=loaded.version,
        since=loaded.since,
        until=loaded.until,
        started_at=loaded.started,
        opened_at=loaded.opened,
        batch=loaded.batch,
        compared=len(figures.search.values),
        before=CauseCounts.model_validate(figures.before),
        during=CauseCounts.model_validate(figures.during),
        after=CauseCounts.model_validate(figures.after),
        values=[_build_value(finding) for finding in figures.findings],
        new_values=[CauseNewValue.model_validate(value) for value in figures.new_values],
        not_compared=_build_gaps(figures),
    )


def _build_value(finding: "ValueFinding") -> CauseValue:
    compared = finding.compared
    return CauseValue(
        source=compared.source,
        name=compared.kind,
        value=compared.value,
        verdict=finding.verdict,
        chance=compared.chance,
        differing=compared.count,
        judged=compared.n,
        low=compared.low,
        high=compared.high,
        others_differing=compared.rest_count,
        others_judged=compared.rest_n,
        visible_difference=finding.visible_difference,
        before=CauseCounts.model_validate(finding.before),
        during=CauseCounts.model_validate(finding.during),
        after=CauseCounts.model_validate(finding.after),
        others_before=CauseCounts.model_validate(finding.others_before),
    )


def _build_gaps(figures: "IncidentCause") -> list[CauseGap]:
    search = figures.search
    return [
        *(CauseGap(source=key[0], name=key[1], values=left) for key, left in search.omitted),
        *(CauseGap(source=key[0], name=key[1], values=None) for key in search.uncompared),
    ]
