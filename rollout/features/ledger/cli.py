"""`rollout ledger`: the table of its commands, and those that need no database."""

from pathlib import Path
from typing import Annotated, ClassVar, Final, NoReturn

import typer

from rollout.engine.ledger.ledger import Checkpoint
from rollout.engine.words.formatting import format_quantity
from rollout.features.ledger.ledger_verification import verify_ledger
from rollout.kernel.errors import RefusalError, format_install
from rollout.terminal.command_table import CommandEntry, TableGroup, has_server_packages
from rollout.terminal.remote import ServerUrl, print_refusals

COMMANDS: Final = {
    "seal": CommandEntry(
        "features.ledger.cli:print_report_seal",
        "Print the seal of a report: the hash in the ledger's entry `ReportSealed`.",
    ),
    "verify": CommandEntry(
        "features.ledger.cli:verify",
        "Verify a ledger: recompute every hash. Exit 1 and name the first bad line.",
    ),
    "create-key": CommandEntry(
        "features.ledger.cli:create_key",
        "Create a key that signs checkpoints; print its public key.",
        needs_server=True,
    ),
    "export": CommandEntry(
        "features.ledger.stored_cli:export",
        "Print the ledger of a rollout, one entry per line. `rollout ledger verify` reads it.",
        needs_server=True,
    ),
    "export-access": CommandEntry(
        "features.ledger.stored_cli:export_access",
        "Print the access ledger (users, roles, keys), one entry per line.",
        needs_server=True,
    ),
    "checkpoint": CommandEntry(
        "features.ledger.stored_cli:sign_checkpoint",
        "Sign the heads of all ledgers in the database, to be kept elsewhere.",
        needs_server=True,
    ),
}


class LedgerGroup(TableGroup):
    """The commands of `rollout ledger` whose packages are installed."""

    entries: ClassVar = {name: entry for name, entry in COMMANDS.items() if entry.is_available()}


app = typer.Typer(cls=LedgerGroup, no_args_is_help=True)
CHANGED = "An entry there or just before was changed, removed or added after it was written."
HEAD_MISSING = (
    "Entries were removed at the end, every hash was recomputed, or the expected hash is of another"
    " ledger. Compare the head's revision and rollout with your notes first."
)
EMPTY_FILE = """\
The access ledger has no entries until the first user is added. Any other ledger has at least one:
export it again."""
NO_LEDGER = """\
This file is not an exported ledger, or its first line is damaged. Export one:
`rollout ledger export NAME > ledger.jsonl`. `rollout replay` writes ledger.jsonl too."""
FAULT_ADVICE = """\
Don't use this copy. Verify the stored ledger (`rollout ledger verify --rollout NAME`) and export it
again; if the stored one fails too, keep both for an investigation and restore a backup."""


HeadOption = Annotated[
    str | None,
    typer.Option(help="hash that you stored outside this system; an entry must have it"),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(help="file of signed checkpoints; the ledger must have the rows that they name"),
]
PublicKeyOption = Annotated[
    str | None, typer.Option(help="public key of the checkpoints, as create-key printed it")
]


@app.callback()
def describe_commands() -> None:
    """Export and verify ledgers.

    A rollout's ledger holds every change of its scope; the access ledger holds every change of
    users, roles and keys.

    Example: `rollout ledger export ramps > ledger.jsonl`
    """


def print_report_seal(
    file: Annotated[Path, typer.Argument(help="a report as JSON", metavar="FILE")],
) -> None:
    """Print the seal of a report: the hash in the ledger's entry `ReportSealed`.

    It stays the same when an erasure takes rows or texts from the report.

    Example: `rollout ledger seal week.json`
    """
    from rollout.features.reports.figures.report_version import compute_seal

    with print_refusals():
        text = file.read_text(encoding="utf-8")
        try:
            typer.echo(compute_seal(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no report as JSON: {error}") from error


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="exported ledger, one entry per line", metavar="[FILE]")
    ] = None,
    head: HeadOption = None,
    checkpoint: CheckpointOption = None,
    public_key: PublicKeyOption = None,
    rollout: Annotated[
        str | None, typer.Option(help="verify the stored ledger of this rollout, instead of a file")
    ] = None,
    server: ServerUrl = None,
) -> None:
    """Verify a ledger: recompute every hash. Exit 1 and name the first bad line.

    The hashes show edited, deleted and swapped entries. To find entries removed at the end, or a
    ledger whose hashes were all recomputed, store the head (the last hash) elsewhere and pass it as
    `--head`. With --rollout it must be the last hash; in a file it may be an earlier one. Signed
    heads (`rollout ledger checkpoint`) are compared by `--checkpoint FILE --public-key KEY`.

    Example: `rollout ledger verify rollout-demo/ledger.jsonl`

    The stored ledger: `rollout ledger verify --rollout ramps`
    """
    with print_refusals():
        if file is not None and rollout is None:
            _verify_file(file, head, load_checkpoints(checkpoint, public_key))
            return
        if file is not None or rollout is None:
            raise RefusalError("name one ledger: FILE, or --rollout NAME for the stored one")
        if checkpoint is not None:
            raise RefusalError(
                "`rollout doctor --heads FILE` compares stored ledgers; name it there"
            )
        if not has_server_packages():
            raise RefusalError(f"--rollout needs more packages: {format_install('server')}")
    from rollout.features.ledger.stored_cli import verify_rollout

    verify_rollout(rollout, head, server)


def _verify_file(file: Path, head: str | None, checkpoints: tuple[Checkpoint, ...]) -> None:
    verification = verify_ledger(file, head, checkpoints)
    if not verification.is_ledger:
        advice = NO_LEDGER if file.stat().st_size else EMPTY_FILE
        typer.echo(f"{file}: {verification.fault}\n{advice}", err=True)
        raise typer.Exit(1)
    if verification.fault:
        report_fault(str(file), verification.fault, is_head_missing=verification.is_chain_intact)
    erased = (
        ""
        if not verification.erased
        else f"; {verification.erased} texts erased, their hashes remain"
    )
    later = (
        f"; {verification.later_rows} entries follow the expected head"
        if verification.later_rows
        else ""
    )
    signed = (
        f"; {format_quantity(verification.checkpoints, 'signed head')} found"
        if verification.checkpoints
        else ""
    )
    typer.echo(
        f"{file}: {verification.rows} entries, intact{erased}{later}{signed}; head"
        f" {verification.head}"
    )


def create_key(
    file: Annotated[Path, typer.Argument(help="new file for the private key", metavar="FILE")],
) -> None:
    """Create a key that signs checkpoints; print its public key.

    Keep the file where users who can write the database can't read it, and name it in
    ROLLOUT_CHECKPOINT_KEY_FILE. Give the public key to all who verify.

    Example: `rollout ledger create-key /etc/rollout/checkpoint.key`
    """
    from rollout.live.checkpoint_keys import create_signing_key

    with print_refusals():
        public_key = create_signing_key(file)
    typer.echo(public_key)
    typer.echo(f"{file}: private key, readable by you alone. Above: the public key.", err=True)


def load_checkpoints(file: Path | None, public_key: str | None) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a file, with their signatures checked; none without a file.

    Raises:
        RefusalError: a file without key, a key without file, or a signature of another key.
    """
    if file is None and public_key is None:
        return ()
    if file is None or public_key is None:
        raise RefusalError("a file of checkpoints and --public-key belong together; name both")
    if not has_server_packages():
        raise RefusalError(f"--checkpoint needs more packages: {format_install('server')}")
    from rollout.features.ledger.ledger_reader import read_checkpoints

    return read_checkpoints(file, (public_key,))


def report_fault(name: str, fault: str, *, is_head_missing: bool) -> NoReturn:
    """Print the first fault of a ledger and what to do next, and exit with code 1."""
    cause = HEAD_MISSING if is_head_missing else CHANGED
    typer.echo(f"{name}: not intact: {fault}\n{cause}\n{FAULT_ADVICE}", err=True)
    raise typer.Exit(1)
