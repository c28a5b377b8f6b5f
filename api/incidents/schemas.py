"""Schemas of the cause of an incident."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi.responses import JSONResponse
from pydantic import AliasPath, BaseModel, BeforeValidator, Field
from pydantic.config import JsonDict

from api.schema_forms import LATER, NOON, AttributeForm
from rollout.features.incidents.incidents import RELOAD_SECONDS

if TYPE_CHECKING:
    from rollout.features.incidents.incident_causes import LoadedCause
    from rollout.kernel.statistics.value_search import ValueSearch
    from rollout.live.work.user_runs import UserRun


class CauseCounts(AttributeForm):
    """Judged cases and those in which the version differs, with its 95 % interval."""

    differing: int = Field(validation_alias="count")
    judged: int = Field(validation_alias="n")
    share: float | None = Field(validation_alias="rate")
    low: float | None
    high: float | None


class CauseValue(AttributeForm):
    """A value's cases against all others of the same time, and before and after the incident.

    The intervals of all values cover together with 95 %.
    """

    source: str = Field(validation_alias=AliasPath("compared", "source"), examples=["attribute"])
    name: str = Field(validation_alias=AliasPath("compared", "kind"), examples=["form"])
    value: str = Field(validation_alias=AliasPath("compared", "value"), examples=["new"])
    verdict: Literal["stands-out", "follows", "new", "chance"] = Field(
        description="It can be the cause; stands out, but follows from the cause; is new and can't"
        " be told yet; or could differ by chance."
    )
    chance: float = Field(
        validation_alias=AliasPath("compared", "chance"),
        description="Holm's p-value of Fisher's exact test against the others.",
    )
    differing: int = Field(validation_alias=AliasPath("compared", "count"))
    judged: int = Field(validation_alias=AliasPath("compared", "n"))
    low: float = Field(validation_alias=AliasPath("compared", "low"))
    high: float = Field(validation_alias=AliasPath("compared", "high"))
    others_differing: int = Field(validation_alias=AliasPath("compared", "rest_count"))
    others_judged: int = Field(validation_alias=AliasPath("compared", "rest_n"))
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


def _list_gaps(search: "ValueSearch") -> list[CauseGap]:
    return [
        *(CauseGap(source=key[0], name=key[1], values=left) for key, left in search.omitted),
        *(CauseGap(source=key[0], name=key[1], values=None) for key in search.uncompared),
    ]


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


class Cause(AttributeForm, json_schema_extra={"example": CAUSE}):
    """Since when and in which cases a version differs around an incident."""

    site: str
    window: str
    version: str
    since: datetime
    until: datetime
    started_at: datetime | None = Field(description="Likeliest begin; null if no rise is likely.")
    opened_at: datetime | None = Field(description="Of the incident; null of a cell or a filter.")
    batch: int | None = Field(description="Judged cases by which your figures move; null is one.")
    compared: Annotated[int, BeforeValidator(len)] = Field(
        validation_alias=AliasPath("cause", "search", "values"),
        description="Number of values compared since the begin.",
    )
    before: CauseCounts = Field(validation_alias=AliasPath("cause", "before"))
    during: CauseCounts = Field(validation_alias=AliasPath("cause", "during"))
    after: CauseCounts = Field(validation_alias=AliasPath("cause", "after"))
    values: list[CauseValue] = Field(
        validation_alias=AliasPath("cause", "findings"),
        description="Those that can be the cause first, at least 50.",
    )
    new_values: list[CauseNewValue] = Field(validation_alias=AliasPath("cause", "new_values"))
    not_compared: Annotated[list[CauseGap], BeforeValidator(_list_gaps)] = Field(
        validation_alias=AliasPath("cause", "search")
    )


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
