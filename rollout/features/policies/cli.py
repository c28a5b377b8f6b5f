"""`rollout apply`: apply a policy to a live rollout."""

from typing import Annotated

import typer

from rollout.features.delivery.channels_cli import list_configured_names
from rollout.features.policies.policies import preview_policy, put_policy
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy_files.reader import parse_policy, read_policy_text
from rollout.terminal.remote import (
    ActorName,
    JsonFlag,
    PastInstant,
    PolicyFile,
    ServerUrl,
    build_path,
    format_changes,
    parse_salt,
    print_answer,
    print_refusals,
)
from rollout.terminal.runner import CommandRequest, build_local_service, build_runner


def apply(
    policy: PolicyFile,
    by: ActorName = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would change, and change nothing")
    ] = False,
    server: ServerUrl = None,
    at: PastInstant = None,
    salt: Annotated[
        str | None,
        typer.Option(help="hex salt of a new rollout, local database only (default: random)"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Apply a policy. A new one creates the rollout; a looser one becomes a proposal.

    Evidence counts from then on. To import recorded history, create the rollout with `--at` set to
    a time before it.

    Example: `rollout apply policy.yaml --by ana --at 2026-09-01T00:00Z`

    On a service: `ROLLOUT_API_KEY=ro_… rollout apply policy.yaml --server URL`
    """
    with print_refusals():
        text = read_policy_text(policy)
        rollout_name = parse_policy(text, name=policy.name).rollout
        salt_bytes = None if salt is None else parse_salt(salt)
        configured_names = None if server else list_configured_names()
        if salt_bytes and server:
            raise RefusalError(
                "--salt works on the local database only; leave it out with --server"
            )
    runner = build_runner(server, by, None, at)
    if dry_run:
        request = CommandRequest(
            "POST",
            "/v1/plan",
            lambda context: preview_policy(
                build_local_service(context.database),
                context.caller,
                text,
                at=context.at,
                channels=configured_names,
            ),
            text=text,
        )
    else:
        request = CommandRequest(
            "PUT",
            build_path(rollout_name, "policy"),
            lambda context: put_policy(
                context.database,
                context.caller,
                rollout_name,
                text,
                at=context.at,
                salts=(salt_bytes, None),
                channels=configured_names,
            ),
            text=text,
        )
    (result,) = runner.run(request)
    summary = format_changes(result) if dry_run else result["text"]
    print_answer(result, "\n".join([summary, *result["warnings"]]), as_json=as_json)
