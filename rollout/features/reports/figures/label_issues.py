"""Likely label issues, the effect of cleaning them on agreement, and the export of training rows.

The largest losses of a version are often human label errors. Users who clean the list see the
model's answers, which alone raises agreement: it is reported separately and is never evidence.

Training rows are exported as JSON lines, CSV or Parquet, with a manifest. The canonical format is
JSON lines: one row per line, sorted by case key and lever, fields in the order of
`TRAINING_SCHEMA`, instants in UTC with microseconds. The manifest's `sha256` is that of the JSON
lines in every format, so that it can be reproduced with `sha256sum`.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from io import BytesIO, StringIO
from pathlib import Path
from typing import Final, overload

import polars as pl

from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.records.reviews import (
    CHOICES,
    DROP,
    RELABEL,
    CleaningChoice,
    LabelKey,
    find_final_choices,
)
from rollout.features.reports.figures.label_sources import (
    ASSIGNMENT_SCHEMA,
    SOURCES,
    TRAINING_SCHEMA,
    build_labelled_rows,
    select_training_rows,
)
from rollout.features.reports.inputs.divergence_columns import (
    ExportManifest,
    Loss,
    SourceCount,
    build_divergence_id,
)
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.inputs.losses import build_losses, rank_losses
from rollout.features.reports.inputs.pairs import LeverFigures, Pairs, compare_answers
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.intervals import Share, compute_unit_share
from rollout.kernel.units import Lever

ROWS_AT_ONCE: Final = 10_000  # of a list that is read to its end


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """A case to look at again, and the choice about it, if any."""

    loss: Loss
    choice: CleaningChoice | None

    @property
    def name(self) -> str:
        """Return an identifier of fixed length, unique in the list."""
        return build_divergence_id(self.loss.version, self.loss.lever, self.loss.case_key)


@dataclass(frozen=True, eq=False)
class WorkList(Sequence[LabelIssue]):
    """Label issues in order; they are built when they are asked for, a page at once.

    Attributes:
        losses: the rows of the list.
        records, cases: what is known of their cases.
        choices: the final choice of each label.
    """

    losses: pl.DataFrame
    records: RecordFrames
    cases: pl.DataFrame
    choices: Mapping[LabelKey, CleaningChoice]

    @property
    def case_keys(self) -> list[str]:
        """The cases, in order."""
        return self.losses["case_key"].to_list()

    def __len__(self) -> int:
        """Return the number of issues."""
        return self.losses.height

    @overload
    def __getitem__(self, place: int) -> LabelIssue: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[LabelIssue]: ...

    def __getitem__(self, place: int | slice) -> LabelIssue | Sequence[LabelIssue]:
        """Return an issue, or those of a page."""
        if isinstance(place, slice):
            return self._build(self.losses[place])
        return self._build(self.losses[range(len(self))[place], :])[0]

    def __iter__(self) -> Iterator[LabelIssue]:
        """Yield all issues."""
        for rows in self.losses.iter_slices(ROWS_AT_ONCE):
            yield from self._build(rows)

    def _build(self, rows: pl.DataFrame) -> list[LabelIssue]:
        losses = build_losses(rows, self.records, self.cases)
        return [LabelIssue(loss, self.choices.get((loss.case_key, loss.lever))) for loss in losses]

    def count_kinds(self) -> Mapping[str, int]:
        """Return the number of issues of each kind, in the order of the list."""
        return dict(self.losses.group_by("kind", maintain_order=True).len().iter_rows())

    def find_place_after(self, name: str | None) -> int:
        """Return the place after an issue; 0 for None, or if the list has none of this name."""
        if name is None:
            return 0
        rows = self.losses.select("version", "lever", "case_key").iter_rows()
        return next(
            (place for place, row in enumerate(rows, start=1) if build_divergence_id(*row) == name),
            0,
        )

    def select_sites(self, is_readable: Callable[[str], bool]) -> "WorkList":
        """Return the issues at sites for which a function is true; a case may have none, ""."""
        sites = {"", *self.records.cases["site"].drop_nulls().unique()}
        readable_sites = [site for site in sites if is_readable(site)]
        if len(readable_sites) == len(sites):
            return self
        case_sites = self.records.cases.select("case_key", "site")
        placed = self.losses.join(case_sites, on="case_key", how="left", maintain_order="left")
        is_listed = placed["site"].fill_null("").is_in(readable_sites)
        return replace(self, losses=self.losses.filter(is_listed))

    def select_chosen(self, *, has_choice: bool) -> "WorkList":
        """Return the issues with a choice, or without."""
        schema = {"case_key": pl.String, "lever": pl.String}
        losses = self.losses.join(
            pl.DataFrame(list(self.choices), schema=schema, orient="row"),
            on=list(schema),
            how="semi" if has_choice else "anti",
            maintain_order="left",
        )
        return replace(self, losses=losses)


def build_work_list(
    records: RecordFrames,
    cases: pl.DataFrame,
    policy: Policy,
    choices: Mapping[LabelKey, CleaningChoice],
) -> WorkList:
    """Return all label issues: unsure ones last, then the largest cost times loss first.

    `records`: a history, or the closed cases of a live rollout.
    `cases`: the cases in a cell.
    `choices`: the final choice of each label.
    """
    return WorkList(rank_losses(records, policy), records, cases, choices)


def build_item_rows(items: Iterable[LabelIssue]) -> Iterator[dict[str, object]]:
    """Yield the rows of a table to fill in; the last three columns are the choice."""
    for item in items:
        loss, choice = item.loss, item.choice
        yield {
            "case_key": loss.case_key,
            "version": loss.version,
            "lever": loss.lever,
            "site": loss.site,
            "window": loss.window,
            "occurred_at": None if loss.occurred_at is None else loss.occurred_at.isoformat(),
            "human": loss.human,
            "model": loss.model,
            "confidence": loss.confidence,
            "outcome": loss.outcome,
            "loss": loss.loss,
            "cost": loss.cost,
            "kind": loss.kind,
            "choice": None if choice is None else choice.choice,
            "label": None if choice is None else choice.label,
            "reason": None if choice is None else choice.reason,
        }


@dataclass(frozen=True, slots=True)
class CleaningEffect(LeverFigures):
    """Agreement of one version before and after cleaning.

    Attributes:
        version, lever: whose answers.
        before: agreement with the first labels.
        after: agreement with new labels and without dropped cases; never evidence.
        relabelled, dropped, kept: pairs by choice.
        relabelled_to_model: relabelled pairs whose new label is this version's answer. If nearly
            all are, the list may have biased the choices.
    """

    before: Share
    after: Share
    relabelled: int
    dropped: int
    kept: int
    relabelled_to_model: int


@dataclass(frozen=True, slots=True)
class CleaningFigures:
    """Choices so far; `has_choices` is False for a replay without choices."""

    has_choices: bool
    choices: int
    headlines: tuple[CleaningEffect, ...]


def compute_cleaning(inputs: ReportInputs, pairs: Pairs) -> CleaningFigures:
    """Return the effect of the final choices; no headlines without choices."""
    choices = find_final_choices(inputs.choices)
    return CleaningFigures(
        has_choices=not inputs.is_simulated or bool(choices),
        choices=len(choices),
        headlines=compute_cleaning_effects(pairs, inputs.policy.levers, choices) if choices else (),
    )


def compute_cleaning_effects(
    pairs: Pairs, levers: Iterable[Lever], choices: Mapping[LabelKey, CleaningChoice]
) -> tuple[CleaningEffect, ...]:
    """Return the effect on each version and lever with choices about its pairs."""
    effects = (
        _compute_cleaning_effect(pairs.select(version, lever.id), version, lever, choices)
        for lever in levers
        for version in pairs.predicted
    )
    return tuple(effect for effect in effects if effect.relabelled + effect.dropped + effect.kept)


def _compute_cleaning_effect(
    pairs: pl.DataFrame, version: str, lever: Lever, choices: Mapping[LabelKey, CleaningChoice]
) -> CleaningEffect:
    before = pairs.select("case_key", "unit", "agrees", "model")
    after, counts, to_model = [], dict.fromkeys(CHOICES, 0), 0
    for key, unit, agrees, model in before.iter_rows():
        choice = choices.get((key, lever.id))
        if choice is not None:
            counts[choice.choice] += 1
            to_model += choice.choice == RELABEL and choice.label == model
        if choice is None or choice.choice != DROP:
            after.append(
                (unit, _compare_choice(lever, choice, model) if choice else agrees, agrees)
            )
    remaining = pl.DataFrame(after, schema=["unit", "chosen", "was"], orient="row")
    return CleaningEffect(
        version=version,
        lever=lever.id,
        before=compute_unit_share(before),
        after=compute_unit_share(remaining, pl.coalesce("chosen", "was")),
        relabelled=counts["relabel"],
        dropped=counts["drop"],
        kept=counts["keep"],
        relabelled_to_model=to_model,
    )


def _compare_choice(lever: Lever, choice: CleaningChoice, model: str) -> bool | None:
    """Return whether the model agrees with a new label; None if the label was kept."""
    return compare_answers(lever, choice.label, model)[0] if choice.label is not None else None


SCHEMA = "rollout-training/1"
FORMATS = ("jsonl", "csv", "parquet")
ROWS_PER_CHUNK = 5_000


@dataclass(frozen=True)
class TrainingExport:
    """Training rows with their manifest."""

    rows: pl.DataFrame
    manifest: ExportManifest


def build_export_from_records(
    policy: Policy,
    records: RecordFrames,
    cases: pl.DataFrame,
    *,
    sources: Sequence[str],
    assigned_cases: pl.DataFrame | None = None,
    choices: Iterable[CleaningChoice] = (),
    withheld_count: int = 0,
) -> TrainingExport:
    """Return the training rows of a history or of a live rollout's closed cases.

    Args:
        policy: gives levers and hash.
        records: all records of the cases.
        cases: the cases in a cell.
        sources: permitted sources of labels.
        assigned_cases: columns of `ASSIGNMENT_SCHEMA`; None for recorded files.
        choices: cleaning choices in order of time.
        withheld_count: cases withheld because they are open for review.

    Raises:
        ValueError: a source is none of `SOURCES`.
    """
    assignments = (
        pl.DataFrame(schema=ASSIGNMENT_SCHEMA) if assigned_cases is None else assigned_cases
    )
    labelled_rows = build_labelled_rows(records, policy, cases, assignments, choices)
    rows = select_training_rows(labelled_rows, sources)
    return TrainingExport(
        rows,
        ExportManifest(
            schema=SCHEMA,
            rollout=policy.rollout,
            policy=policy.hash,
            versions=tuple(records.predictions["version"].unique().sort()),
            sources=tuple(count_sources(rows, [source for source in SOURCES if source in sources])),
            first=_to_datetime(rows["occurred_at"].min()),
            last=_to_datetime(rows["occurred_at"].max()),
            rows=rows.height,
            cases=rows["case_key"].n_unique(),
            weight=float(rows["weight"].sum()),
            excluded=_count_excluded(labelled_rows, sources, withheld_count * len(policy.levers)),
            cleaned={choice: int((labelled_rows["cleaned"] == choice).sum()) for choice in CHOICES},
            columns=tuple(TRAINING_SCHEMA),
            sha256=compute_digest(rows),
        ),
    )


def count_sources(rows: pl.DataFrame, sources: Sequence[str]) -> Iterator[SourceCount]:
    """Yield the row count of each source, also of empty ones."""
    for source in sources:
        source_rows = rows.filter(pl.col("source") == source)
        yield SourceCount(source, source_rows.height, float(source_rows["weight"].sum()))


def _to_datetime(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _count_excluded(
    labelled_rows: pl.DataFrame, sources: Sequence[str], withheld_count: int
) -> dict[str, int]:
    """Return why cases and levers have no row, without reasons that have none."""
    is_dropped = pl.col("cleaned").fill_null("") == DROP
    has_no_label = pl.col("label").is_null()
    is_other_source = ~is_dropped & ~has_no_label & ~pl.col("source").is_in(list(sources))
    counts = {
        "no label": labelled_rows.filter(has_no_label & ~is_dropped).height,
        "dropped": labelled_rows.filter(is_dropped).height,
        "not asked for": labelled_rows.filter(is_other_source).height,
        "open for review": withheld_count,
    }
    return {reason: n for reason, n in counts.items() if n}


def format_lines(rows: pl.DataFrame) -> Iterator[bytes]:
    """Yield the rows in canonical format, in chunks."""
    for part in _format_times(rows).iter_slices(ROWS_PER_CHUNK):
        lines = (
            json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            for row in part.iter_rows(named=True)
        )
        yield "".join(f"{line}\n" for line in lines).encode()


def _format_times(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(*TRAINING_SCHEMA).with_columns(
        pl.col("occurred_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    )


def compute_digest(rows: pl.DataFrame) -> str:
    """Return the SHA-256 of the rows in canonical format."""
    digest = sha256()
    for part in format_lines(rows):
        digest.update(part)
    return digest.hexdigest()


def format_rows(rows: pl.DataFrame, file_format: str) -> Iterator[bytes]:
    """Yield the rows as a file of one of the `FORMATS`.

    Raises:
        ValueError: the format is none of `FORMATS`.
    """
    if file_format not in FORMATS:
        raise ValueError(f"no form {file_format}; there is {', '.join(FORMATS)}")
    return {"jsonl": format_lines, "csv": _format_csv, "parquet": _format_parquet}[file_format](
        rows
    )


def _format_csv(rows: pl.DataFrame) -> Iterator[bytes]:
    yield f"{','.join(TRAINING_SCHEMA)}\n".encode()
    for part in _format_times(rows).iter_slices(ROWS_PER_CHUNK):
        text = StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(part.iter_rows())
        yield text.getvalue().encode()


def _format_parquet(rows: pl.DataFrame) -> Iterator[bytes]:
    file = BytesIO()
    rows.select(*TRAINING_SCHEMA).write_parquet(file)
    yield file.getvalue()


def render_manifest(manifest: ExportManifest) -> str:
    """Return the manifest as JSON, the same for the same rows."""
    text = json.dumps(asdict(manifest), default=datetime.isoformat, ensure_ascii=False, indent=2)
    return f"{text}\n"


def read_manifest_hash(file: Path) -> str:
    """Return the hash of the rows that a manifest names.

    Raises:
        ValueError: the file is no manifest.
    """
    try:
        value = json.loads(file.read_text("utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file}: is no manifest of training rows") from None
    return str(value)


def read_training_rows(file: Path) -> pl.DataFrame:
    """Return the rows of an exported file; its suffix is the format.

    Raises:
        ValueError: the suffix is unknown, or a column is missing.
    """
    file_format = file.suffix.removeprefix(".")
    if file_format not in FORMATS:
        raise ValueError(f"{file}: name it .{', .'.join(FORMATS)}")
    frame = _read_frame(file, file_format)
    missing = [name for name in TRAINING_SCHEMA if name not in frame.columns]
    if missing:
        raise ValueError(f"{file}: no column {missing[0]}; it is no export of training rows")
    return frame.select(*TRAINING_SCHEMA).cast(pl.Schema(TRAINING_SCHEMA))


def _read_frame(file: Path, file_format: str) -> pl.DataFrame:
    if file_format == "parquet":
        return pl.read_parquet(file)
    if file_format == "csv":
        frame = pl.read_csv(file, infer_schema=False)
    else:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
        schema = None if rows else TRAINING_SCHEMA
        frame = pl.DataFrame(rows, schema=schema, infer_schema_length=None)
    if "occurred_at" in frame.columns and frame.schema["occurred_at"] == pl.String:
        frame = frame.with_columns(
            pl.col("occurred_at").str.to_datetime("%+", time_unit="us", time_zone="UTC")
        )
    return frame
