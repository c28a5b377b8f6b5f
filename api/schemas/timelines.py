"""Schemas of a cell's timeline."""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.schemas.examples import NOON

FROM_ATTRIBUTES = ConfigDict(from_attributes=True)
DAY = "2027-06-01T06:00:00Z"
Decider = Literal["human", "confirmed", "model"]


class TimelineSpan(BaseModel):
    """Which part of a timeline is wanted."""

    since: AwareDatetime | None = Field(None, alias="from", examples=[DAY])
    until: AwareDatetime | None = Field(None, examples=[NOON])
    version: str = Field("", max_length=200, description="Only this version's points.")


class TimelineBucketItem(BaseModel):
    """Closed units of a bucket by who decided them under the stage; it ends with the next."""

    model_config = FROM_ATTRIBUTES

    since: datetime
    human: int
    confirmed: int = Field(description="Humans decided with the model's answer before them.")
    model: int


class TimelineStageItem(BaseModel):
    """A time on one stage: the acting version, empty in shadow, and who decided."""

    model_config = FROM_ATTRIBUTES

    stage: str
    version: str
    decider: Decider
    since: datetime
    until: datetime


class TimelinePointItem(BaseModel):
    """A version in a bucket: blind decisions, their share or mean cost, and the gate's bound."""

    model_config = FROM_ATTRIBUTES

    bucket: int = Field(description="Index in `buckets`.")
    judged: int
    value: float | None
    bound: float | None = Field(
        description="Of the attempt up to the bucket's end; null without a gate on the measure, "
        "and for a caller who may be asked for blind reviews."
    )


class TimelineVersionItem(BaseModel):
    """A version's points, one for each bucket with figures."""

    model_config = FROM_ATTRIBUTES

    version: str
    acting: bool
    points: list[TimelinePointItem]


class TimelineThresholdItem(BaseModel):
    """A threshold of the policy in force on the measure: of gates or of a guard."""

    model_config = FROM_ATTRIBUTES

    kind: Literal["gate", "guard"]
    name: str
    value: float


class TimelineMarkItem(BaseModel):
    """An event; `revision` is its ledger entry, 0 for the first units with a new value."""

    model_config = FROM_ATTRIBUTES

    at: datetime
    revision: int
    kind: str
    text: str
    tone: str


class TimelineGapItem(BaseModel):
    """A time of which records were deleted: counts stay, cases can't be opened."""

    model_config = FROM_ATTRIBUTES

    kind: Literal["purged"]
    since: datetime
    until: datetime


class Timeline(BaseModel):
    """What the console draws of a cell: at most 400 buckets of closed units.

    `counted_until` is the last tick. `batch` is the number of judged units by which figures move
    at once if you may be asked for blind reviews at the site, else null.
    """

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "site": "creek",
                "window": "night",
                "timezone": "America/Vancouver",
                "since": DAY,
                "until": NOON,
                "counted_until": NOON,
                "bucket": "hour",
                "measure": "agreement",
                "at_least": True,
                "batch": None,
                "buckets": [{"since": DAY, "human": 3, "confirmed": 11, "model": 0}],
                "stages": [
                    {
                        "stage": "supervised",
                        "version": "v7",
                        "decider": "confirmed",
                        "since": DAY,
                        "until": NOON,
                    }
                ],
                "versions": [
                    {
                        "version": "v7",
                        "acting": True,
                        "points": [{"bucket": 0, "judged": 3, "value": 1.0, "bound": 0.9551}],
                    }
                ],
                "thresholds": [{"kind": "gate", "name": "gate to autonomous", "value": 0.95}],
                "marks": [
                    {
                        "at": DAY,
                        "revision": 41,
                        "kind": "Widened",
                        "text": "v7 widened to supervised",
                        "tone": "wider",
                    }
                ],
                "gaps": [],
            }
        },
    )

    site: str
    window: str
    timezone: str
    since: datetime
    until: datetime
    counted_until: datetime | None
    bucket: str = Field(description="`hour`, `day`, `week`, `4 weeks` or `52 weeks`.")
    measure: str
    at_least: bool
    batch: int | None
    buckets: list[TimelineBucketItem]
    stages: list[TimelineStageItem]
    versions: list[TimelineVersionItem]
    thresholds: list[TimelineThresholdItem]
    marks: list[TimelineMarkItem]
    gaps: list[TimelineGapItem]
