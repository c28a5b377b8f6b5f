"""`rollout training`: export training rows with the source and weight of each label."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.features.reports.figures.label_issues import (
    FORMATS,
    TrainingExport,
    compute_digest,
    format_rows,
    read_manifest_hash,
    read_training_rows,
    render_manifest,
)
from rollout.features.reports.figures.label_sources import HUMAN_SOURCES, SOURCES
from rollout.features.training.cleaning_cli import read_choices, read_input_files
from rollout.features.training.cleaning_files import export_files_for_training
from rollout.kernel.atomic_files import write_files_atomically
from rollout.terminal.output import print_refusals
from rollout.terminal.record_options import (
    CasesFile,
    ChoicesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsFile,
    Labels,
    OutcomesFile,
    PredictionsFile,
    SameForm,
)
from rollout.terminal.rollout_options import PolicyFile

app = typer.Typer(no_args_is_help=True)
TrainingFile = Annotated[
    Path, typer.Option(help=f"file to write; its extension sets the format: {', '.join(FORMATS)}")
]
SourceNames = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help=f"source of labels (repeatable; default: all but the last): {', '.join(SOURCES)}",
    ),
]


@app.callback()
def describe_commands() -> None:
    """Export training rows with a manifest, and verify them against it.

    Example: `rollout training export ramps --out training.parquet`
    """


@app.command("export-files")
def export_files(  # noqa: PLR0913, PLR0917 - one parameter for each option
    policy: PolicyFile,
    predictions: PredictionsFile,
    decisions: DecisionsFile,
    out: TrainingFile,
    cases: CasesFile = None,
    outcomes: OutcomesFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    same_form: SameForm = None,
    labels: Labels = None,
    choices: ChoicesFile = None,
    source: SourceNames = None,
) -> None:
    """Export training rows of recorded files, one for each case and lever.

    A manifest is written next to the file: counts by source, weights, span, policy, and the hash
    of the rows. `--choices` applies a filled list of `rollout clean list-files`.

    Example: `rollout training export-files policy.yaml --predictions p.csv --decisions d.csv
    --choices list.csv --out training.parquet`
    """
    with print_refusals():
        form = find_format(out)
        files = read_input_files(
            policy,
            predictions,
            decisions,
            cases,
            outcomes,
            columns,
            mapped,
            same_form=same_form,
            labels=labels,
        )
        file_choices = read_choices(choices, files, datetime.now(UTC))
        export = export_files_for_training(files, tuple(source or HUMAN_SOURCES), file_choices)
        write_export(export, out, form)
    typer.echo(format_export(export, out))


@app.command("verify")
def verify_rows(
    file: Annotated[Path, typer.Argument(help="exported rows, in any format", metavar="FILE")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest to verify against (default: FILE.manifest.json)"),
    ] = None,
) -> None:
    """Verify exported rows against the hash in their manifest. Exit 1 if they differ.

    Example: `rollout training verify training.parquet`
    """
    with print_refusals():
        rows_hash = compute_digest(read_training_rows(file))
        manifest_file = find_manifest_path(file) if manifest is None else manifest
        manifest_hash = read_manifest_hash(manifest_file)
    if rows_hash != manifest_hash:
        typer.echo(
            f"{file}: the rows differ from {manifest_file.name}: hash {rows_hash}, expected"
            f" {manifest_hash}",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"{file}: rows match {manifest_file.name}, hash {rows_hash}")


def find_format(out: Path) -> str:
    """Return the format for the suffix of a file.

    Raises:
        ValueError: the suffix is unknown.
    """
    form = out.suffix.removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"--out {out} has no known format; end it in .{', .'.join(FORMATS)}")
    return form


def find_manifest_path(file: Path) -> Path:
    """Return the path of the manifest of exported rows."""
    return file.with_name(f"{file.name}.manifest.json")


def write_export(export: TrainingExport, out: Path, file_format: str) -> None:
    """Write rows and their manifest, both or none."""
    files = {
        out.name: b"".join(format_rows(export.rows, file_format)),
        find_manifest_path(out).name: render_manifest(export.manifest).encode(),
    }
    write_files_atomically(out.parent, files)


def format_export(export: TrainingExport, out: Path) -> str:
    """Return a summary of written rows: counts, sources, exclusions and hash."""
    export_manifest = export.manifest
    sources = ", ".join(
        f"{source_count.rows} {source_count.source}"
        for source_count in export_manifest.sources
        if source_count.rows
    )
    excluded_text = ", ".join(
        f"{count} {reason}" for reason, count in export_manifest.excluded.items()
    )
    lines = [
        (
            f"{out}: {export_manifest.rows} rows of {export_manifest.cases} cases:"
            f" {sources or 'no data'}"
        )
    ]
    lines += [f"excluded: {excluded_text}"] if excluded_text else []
    return "\n".join([*lines, f"sha256 of the rows {export_manifest.sha256}"])
