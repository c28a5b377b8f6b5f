"""Training rows and their manifest."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency

if TYPE_CHECKING:
    from rollout.features.reports.figures.label_issues import TrainingExport
    from rollout.features.training.cleaning import TrainingOptions


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
        "description": "one row for each case and lever; the ETag is the manifest's `sha256`",
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
    """The number and total weight of rows whose label has this source."""

    source: str
    rows: int
    weight: float


class TrainingManifest(BaseModel):
    """A description of an export. `sha256` is the hash of its rows as JSON Lines."""

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


Reader = Annotated[Caller, RequirePermission(Permission.READ)]
Sources = Annotated[
    list[Source] | None,
    Query(description="sources of labels; default: all except `model-made`"),
]
Instant = Annotated[AwareDatetime | None, Query(examples=["2027-05-01T00:00:00Z"])]


def _get_options(
    source: Sources = None, since: Instant = None, until: Instant = None
) -> "TrainingOptions":
    from rollout.features.reports.figures.label_sources import HUMAN_SOURCES
    from rollout.features.training.cleaning import TrainingOptions

    return TrainingOptions(tuple(source or HUMAN_SOURCES), since, until)


def _build_export(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    options: Annotated["TrainingOptions", Depends(_get_options)],
) -> "TrainingExport":
    from rollout.features.training.cleaning import export_training_rows as build_training_export

    return build_training_export(service.database, caller, rollout, options, now)


RequestedExport = Annotated["TrainingExport", Depends(_build_export)]


@router.get(
    "",
    operation_id="exportTrainingRows",
    summary="Export training rows",
    response_class=StreamingResponse,
    responses=FILE,
)
def export_training_rows(
    export: RequestedExport, form: Annotated[Form, Query(alias="format")] = "jsonl"
) -> StreamingResponse:
    """Return a row for each labeled case and lever.

    Each row has the label, its source and its weight. Cases under review and cases with the choice
    `drop` are excluded.
    """
    from rollout.features.reports.figures.label_issues import format_rows

    response = StreamingResponse(format_rows(export.rows, form), media_type=MEDIA[form])
    response.headers["ETag"] = f'"{export.manifest.sha256}"'
    response.headers["Content-Disposition"] = f'attachment; filename="training.{form}"'
    return response


@router.get(
    "/manifest", operation_id="getTrainingManifest", summary="Get the manifest of the training rows"
)
def get_training_manifest(export: RequestedExport) -> TrainingManifest:
    """Return the manifest of the rows that the same query exports."""
    from rollout.features.reports.figures.label_issues import build_manifest_values

    return TrainingManifest.model_validate(build_manifest_values(export.manifest))
