"""Rows to train on, and the manifest that says what they are."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Now, Served
from rollout.reports.figures.label_sources import PEOPLES
from rollout.reports.figures.training import Export, plain_manifest, written
from rollout.services.training.training import Wanted, training

router = APIRouter(prefix="/v1/rollouts/{rollout}/training", tags=["training"])
Form = Literal["jsonl", "csv", "parquet"]
Source = Literal["blind", "audit", "assisted", "outcome", "unknown", "model-made"]
MEDIA = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
ROW = (
    '{"case_key":"creek-0412","site":"creek","window":"night",'
    '"occurred_at":"2027-06-01T01:10:00.000000Z","episode":null,"lever":"alarm","label":"bear",'
    '"source":"audit","weight":10.0,"version":"v7","cleaned":null}\n'
)
TABLE = (
    "case_key,site,window,occurred_at,episode,lever,label,source,weight,version,cleaned\n"
    "creek-0412,creek,night,2027-06-01T01:10:00.000000Z,,alarm,bear,audit,10.0,v7,\n"
)
MANIFEST: dict[str, Any] = {
    "schema": "rollout-training/1",
    "rollout": "bear-alarm",
    "policy": "3fe1…",
    "versions": ["v7"],
    "sources": [
        {"source": "blind", "rows": 900, "weight": 900.0},
        {"source": "audit", "rows": 12, "weight": 120.0},
    ],
    "first": "2027-05-01T00:10:00+00:00",
    "last": "2027-06-01T01:10:00+00:00",
    "rows": 912,
    "cases": 912,
    "weight": 1020.0,
    "excluded": {"no label": 4, "not asked for": 108, "open for review": 7},
    "cleaned": {"relabel": 3, "drop": 1, "keep": 5},
    "columns": ["case_key", "site", "window", "occurred_at", "episode", "lever", "label"],
    "sha256": "9f2c…",
}
FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "a row a case and lever; its ETag is the manifest's sha256",
        "content": {
            MEDIA["jsonl"]: {"schema": {"type": "string"}, "example": ROW},
            MEDIA["csv"]: {"schema": {"type": "string"}, "example": TABLE},
            MEDIA["parquet"]: {
                "schema": {"type": "string", "format": "binary"},
                "example": "PAR1… the same columns",
            },
        },
    }
}


class TrainingSource(BaseModel):
    """How many rows have their label from there, and what they weigh together."""

    source: str
    rows: int
    weight: float


class TrainingManifest(BaseModel):
    """What an export holds. `sha256` is of its rows as JSON lines, whatever the form."""

    model_config = ConfigDict(json_schema_extra={"example": MANIFEST}, protected_namespaces=())

    form: str = Field(alias="schema")
    rollout: str
    policy: str
    versions: list[str]
    sources: list[TrainingSource]
    first: AwareDatetime | None
    last: AwareDatetime | None
    rows: int
    cases: int
    weight: float
    excluded: dict[str, int]
    cleaned: dict[str, int]
    columns: list[str]
    sha256: str


Reader = Annotated[Caller, By(Act.READ)]
Sources = Annotated[
    list[Source] | None,
    Query(description="from where labels may come; by default all but what the model made"),
]
Instant = Annotated[AwareDatetime | None, Query(examples=["2027-05-01T00:00:00Z"])]


def _wanted(source: Sources = None, since: Instant = None, until: Instant = None) -> Wanted:
    return Wanted(tuple(source or PEOPLES), since, until)


def _found(
    rollout: str,
    service: Served,
    who: Reader,
    now: Now,
    wanted: Annotated[Wanted, Depends(_wanted)],
) -> Export:
    return training(service.database, who, rollout, wanted, now)


Found = Annotated[Export, Depends(_found)]


@router.get(
    "",
    operation_id="exportTrainingRows",
    summary="Export training rows",
    response_class=StreamingResponse,
    responses=FILE,
)
def export_training_rows(
    found: Found, form: Annotated[Form, Query(alias="format")] = "jsonl"
) -> StreamingResponse:
    """Return a row for each case and lever with a label: from whom it is, and what it weighs.

    No case that people still judge is among them. What was dropped is left out.
    """
    sent = StreamingResponse(written(found.rows, form), media_type=MEDIA[form])
    sent.headers["ETag"] = f'"{found.manifest.sha256}"'
    sent.headers["Content-Disposition"] = f'attachment; filename="training.{form}"'
    return sent


@router.get(
    "/manifest", operation_id="getTrainingManifest", summary="Get the manifest of the training rows"
)
def get_training_manifest(found: Found) -> TrainingManifest:
    """Return counts by source, weights, span, versions, policy and the hash of the same rows."""
    return TrainingManifest.model_validate(plain_manifest(found.manifest))
