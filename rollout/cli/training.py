"""`rollout training`: export training rows with the source and weight of each label."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.errors import refusals
from rollout.cli.import_records import (
    Choices,
    Columns,
    Decisions,
    Mapped,
    Outcomes,
    OwnCases,
    Predictions,
    chosen_in,
    found_in,
)
from rollout.cli.replay import PolicyFile
from rollout.reports.figures.label_sources import PEOPLES, SOURCES
from rollout.reports.figures.training import (
    FORMS,
    Export,
    digest,
    manifest_text,
    named_hash,
    read_rows,
    written,
)
from rollout.services.support.atomic_files import write_whole
from rollout.services.training.cleaning_files import export_of_files

app = typer.Typer(no_args_is_help=True)
Out = Annotated[
    Path, typer.Option(help=f"file to write; its extension sets the format: {', '.join(FORMS)}")
]
From = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help=f"source of labels (repeatable; default: all but the last): {', '.join(SOURCES)}",
    ),
]


@app.callback()
def group() -> None:
    """Export training rows with a manifest, and verify them against it.

    Example: `rollout training export ramps --out training.parquet`
    """


@app.command("export-files")
def export_files(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    policy: PolicyFile,
    predictions: Predictions,
    decisions: Decisions,
    out: Out,
    cases: OwnCases = None,
    outcomes: Outcomes = None,
    columns: Columns = None,
    mapped: Mapped = None,
    choices: Choices = None,
    source: From = None,
) -> None:
    """Export training rows of recorded files, one for each case and lever.

    A manifest is written next to the file: counts by source, weights, span, policy, and the hash
    of the rows. `--choices` applies a filled list of `rollout clean list-files`.

    Example: `rollout training export-files policy.yaml --predictions p.csv --decisions d.csv
    --choices list.csv --out training.parquet`
    """
    with refusals():
        form = form_of(out)
        files = found_in(policy, predictions, decisions, cases, outcomes, columns, mapped)
        file_choices = chosen_in(choices, files, datetime.now(UTC))
        export = export_of_files(files, tuple(source or PEOPLES), file_choices)
        write_export(export, out, form)
    typer.echo(said_of(export, out))


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="exported rows, in any format", metavar="FILE")],
    manifest: Annotated[
        Path | None, typer.Option(help="manifest to verify against (default: FILE.manifest.json)")
    ] = None,
) -> None:
    """Verify exported rows against the hash in their manifest. Exit 1 if they differ.

    Example: `rollout training verify training.parquet`
    """
    with refusals():
        rows_hash = digest(read_rows(file))
        manifest_file = manifest_path(file) if manifest is None else manifest
        manifest_hash = named_hash(manifest_file)
    if rows_hash != manifest_hash:
        typer.echo(
            f"{file}: the rows differ from {manifest_file.name}: hash {rows_hash}, expected"
            f" {manifest_hash}",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"{file}: rows match {manifest_file.name}, hash {rows_hash}")


def form_of(out: Path) -> str:
    """Return the form that a file's ending says.

    Raises:
        ValueError: it is none that there is.
    """
    form = out.suffix.removeprefix(".")
    if form not in FORMS:
        raise ValueError(f"--out {out} has no known format; end it in .{', .'.join(FORMS)}")
    return form


def manifest_path(file: Path) -> Path:
    """Return where the manifest of exported rows stands."""
    return file.with_name(f"{file.name}.manifest.json")


def write_export(export: Export, out: Path, form: str) -> None:
    """Write rows and their manifest, both or none."""
    files = {
        out.name: b"".join(written(export.rows, form)),
        manifest_path(out).name: manifest_text(export.manifest).encode(),
    }
    write_whole(out.parent, files)


def said_of(export: Export, out: Path) -> str:
    """Say in a few lines what was written."""
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
