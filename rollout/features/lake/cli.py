"""`rollout count`: units of a history that may be larger than a machine."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.words.formatting import format_quantity
from rollout.features.lake.counting import UnitCounts, count_parts, count_tables
from rollout.features.lake.engines import (
    LakeError,
    SplitHistory,
    open_on_duckdb,
    open_on_spark,
)
from rollout.features.replay.requests import Progress, ReplayRequest, build_readings, to_path
from rollout.kernel.atomic_files import check_folder
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy
from rollout.terminal.remote import (
    Backtest,
    ColumnFile,
    ColumnMappings,
    EqualSides,
    Labels,
    PolicyFile,
    TrainingCutoffs,
    build_choices,
    parse_salts,
    parse_training_cutoff,
    print_refusals,
    read_with_answers,
    show_progress,
)


class Engine(StrEnum):
    """What brings the records of a unit together."""

    POLARS = "polars"
    DUCKDB = "duckdb"
    SPARK = "spark"


PACKAGES: Mapping[Engine, str] = {Engine.DUCKDB: "duckdb", Engine.SPARK: "pyspark"}


def count(  # noqa: PLR0913, PLR0917 - one parameter for each option
    policy: PolicyFile,
    predictions: Annotated[
        str,
        typer.Option(help="of the model: a file; with DuckDB and Spark a folder or a glob, too"),
    ],
    decisions: Annotated[str, typer.Option(help="of humans: a file, a folder or a glob")],
    out: Annotated[Path, typer.Option(help="file of Parquet for the counts")],
    cases: Annotated[
        str | None, typer.Option(help="sites, times and attributes: a file, a folder or a glob")
    ] = None,
    outcomes: Annotated[
        str | None, typer.Option(help="what became known later: a file, a folder or a glob")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="polars: files that fit into memory; duckdb, spark: any")
    ] = Engine.POLARS,
    spark_remote: Annotated[
        str, typer.Option(help="address of Spark Connect, as sc://host; else the current session")
    ] = "",
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    trained_until: TrainingCutoffs = None,
    salt: Annotated[
        str, typer.Option(help="hex salt of the draws; with `A,B` audits are sampled by B")
    ] = "00" * 32,
    labels: Labels = None,
    equal_sides: EqualSides = False,
    backtest: Backtest = None,
) -> None:
    """Count the units of a history of any size, for a replay that needs no records.

    The counts are equal to those of `rollout replay` on the same records, whatever the engine. With
    DuckDB and Spark an address can be a folder, a glob such as `lake/day-*.parquet`, or what the
    engine's own extensions open.

    Example:
    `rollout count policy.yaml --predictions 'p/*.parquet' --decisions 'd/*.parquet' --engine duckdb
    --out counts.parquet`

    Then: `rollout replay policy.yaml --counts counts.parquet`
    """
    with print_refusals():
        rules = load_policy(policy)
        texts = {
            RecordKind.CASES: cases,
            RecordKind.PREDICTIONS: predictions,
            RecordKind.DECISIONS: decisions,
            RecordKind.OUTCOMES: outcomes,
        }
        addresses = {kind: address for kind, address in texts.items() if address is not None}
        request = ReplayRequest(
            policy,
            RecordPaths(Path(predictions), Path(decisions), to_path(cases), to_path(outcomes)),
            columns=columns,
            column_mappings=tuple(mapped or ()),
            options=ReplayOptions(*parse_salts(salt)),
            trained_until=dict(parse_training_cutoff(text) for text in trained_until or ()),
            choices=build_choices(
                None,
                None,
                same_form=None,
                labels=labels,
                equal_sides=equal_sides,
                backtest=backtest,
            ),
        )
        _check_package(engine)
        check_folder(out.parent)
        if out.is_dir():
            raise ValueError(f"--out {out}: is a folder; name a file in it")
        with show_progress() as progress:
            counts = read_with_answers(
                lambda choices: _count(
                    replace(request, choices=choices),
                    rules,
                    addresses,
                    engine,
                    spark_remote,
                    progress,
                ),
                request.choices,
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        counts.write(out)
    arguments = (str(policy), "--counts", str(out), *(("--salt", salt) if salt.strip("0") else ()))
    typer.echo(
        f"Evidence: {format_quantity(counts.unit_count, 'unit')}, by gate and by guard for each"
        f" version and lever, in {format_quantity(counts.frame.height, 'class', 'classes')}, hash"
        f" {counts.hash[:12]}\n"
        f"Written: {out}. Counts hold no texts, lists of cases, latencies, harms or outcomes.\n"
        f"Next: rollout replay {shlex.join(arguments)}"
    )


def _check_package(engine: Engine) -> None:
    package = PACKAGES.get(engine)
    if package is not None and find_spec(package) is None:
        raise LakeError(f"--engine {engine}: {package} is missing; pip install {package}")


def _count(
    request: ReplayRequest,
    policy: Policy,
    addresses: Mapping[RecordKind, str],
    engine: Engine,
    remote: str,
    progress: Progress,
) -> UnitCounts:
    if engine is Engine.POLARS:
        whole = SplitHistory(lambda count_part: [count_part(request.sources)])
        return count_parts(request, policy, whole, progress)
    readings = build_readings(policy)
    with TemporaryDirectory(prefix="rollout-count-") as folder:
        tables = (
            open_on_duckdb(addresses, readings, Path(folder))
            if engine is Engine.DUCKDB
            else open_on_spark(addresses, readings, remote)
        )
        return count_tables(request, policy, tables, progress=progress)
