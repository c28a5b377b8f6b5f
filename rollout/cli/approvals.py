"""Commands that change a live rollout: approve, reject, narrow, stop, resume, retire."""

from typing import Annotated, Any

import typer

from rollout.cli.errors import refusals
from rollout.cli.output import tell, written_text
from rollout.cli.plan_and_status import AsJson, At, By, Group, Name, Question, Reason, person
from rollout.cli.remote import Server, path_of
from rollout.services.engine import versions
from rollout.services.incidents import incidents
from rollout.services.proposals import proposals
from rollout.services.stops import stops
from rollout.services.stops.stops import Named

Sites = Annotated[
    list[str] | None, typer.Option("--site", help="site or pattern with * (repeatable)")
]
Windows = Annotated[
    list[str] | None, typer.Option("--window", help="window or pattern with * (repeatable)")
]
Every = Annotated[bool, typer.Option("--all", help="all cells")]
Proposal = Annotated[
    str, typer.Argument(help="id from `rollout proposals`, as P-1", metavar="PROPOSAL")
]


def approve(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    proposal: Proposal,
    evidence_hash: Annotated[str, typer.Option(help="hash from `rollout proposals`")],
    by: By = "",
    group: Group = None,
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Approve a proposal. After the last approval, the next tick applies it.

    Example: `rollout approve ramps P-1 --by ana --evidence-hash HASH`

    On a service: `ROLLOUT_API_KEY=ro_… rollout approve ramps P-1 --evidence-hash HASH --server
    URL`
    """
    path = path_of(rollout, "proposals", proposal, "approvals")
    request = Question(
        "POST",
        path,
        lambda context: proposals.approve(
            context.database, context.caller, rollout, proposal, evidence_hash, at=context.at
        ),
        {"evidence_hash": evidence_hash},
    )
    (result,) = person(server, by, group, at).answer(request)
    approval_text = f"{result['at']} Approved {result['proposal']}\n{result['text']}"
    tell(result, approval_text, as_json=as_json)


def reject(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    proposal: Proposal,
    by: By = "",
    group: Group = None,
    reason: Reason = "",
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Reject a proposal. A similar one is raised again only after the policy's quiet time.

    Example: `rollout reject ramps P-1 --by ana --reason "after the holidays"`
    """
    request = Question(
        "POST",
        path_of(rollout, "proposals", proposal, "rejection"),
        lambda context: proposals.reject(
            context.database, context.caller, rollout, proposal, at=context.at, reason=reason
        ),
        {"reason": reason},
    )
    _tell(person(server, by, group, at).answer(request), as_json=as_json)


def narrow(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    to: Annotated[str, typer.Option(help="highest stage that stays, or shadow")],
    by: By = "",
    site: Sites = None,
    window: Windows = None,
    every: Every = False,
    reason: Reason = "",
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Narrow cells to a stage at once: end every grant above it.

    Example: `rollout narrow ramps --to shadow --site ramp-a --by ana`
    """
    target = _named(site, window, every=every)
    request = Question(
        "POST",
        path_of(rollout, "narrowings"),
        lambda context: stops.narrow(
            context.database, context.caller, rollout, target, to, at=context.at, reason=reason
        ),
        {**_sent(target), "to": to, "reason": reason},
    )
    _tell(person(server, by, None, at).answer(request), as_json=as_json)


def stop(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    by: By = "",
    site: Sites = None,
    window: Windows = None,
    every: Every = False,
    drill: Annotated[
        bool, typer.Option(help="mark the stop as a drill; it takes effect all the same")
    ] = False,
    reason: Reason = "",
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Stop cells at once: humans decide every case until a resume is approved.

    Example: `rollout stop ramps --all --by ana`
    """
    target = _named(site, window, every=every)
    request = Question(
        "POST",
        path_of(rollout, "stops"),
        lambda context: stops.stop(
            context.database,
            context.caller,
            rollout,
            target,
            at=context.at,
            reason=reason,
            drill=drill,
        ),
        {**_sent(target), "reason": reason, "drill": drill},
    )
    _tell(person(server, by, None, at).answer(request), as_json=as_json)


def resume(
    rollout: Name,
    stopped: Annotated[
        str, typer.Argument(help="id from `rollout status`, as S-12", metavar="STOP")
    ],
    by: By = "",
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Propose to end a stop. Other users approve it with the hash from `rollout proposals`.

    Example: `rollout resume ramps S-12 --by ana`
    """
    request = Question(
        "POST",
        path_of(rollout, "stops", stopped, "resume"),
        lambda context: stops.ask_resume(
            context.database, context.caller, rollout, stopped, at=context.at
        ),
    )
    _tell(person(server, by, None, at).answer(request), as_json=as_json)


def retire(
    rollout: Name,
    version: Annotated[str, typer.Argument(help="model version to retire", metavar="VERSION")],
    by: By = "",
    reason: Reason = "",
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Retire a model version everywhere: its grants end and it gets no new ones.

    Example: `rollout retire ramps v1 --by ana`
    """
    request = Question(
        "POST",
        path_of(rollout, "versions", version, "retirement"),
        lambda context: versions.retire(
            context.database, context.caller, rollout, version, at=context.at, reason=reason
        ),
        {"reason": reason},
    )
    _tell(person(server, by, None, at).answer(request), as_json=as_json)


def acknowledge(
    rollout: Name,
    incident: Annotated[
        str, typer.Argument(help="id from `rollout incidents`, as I-1", metavar="INCIDENT")
    ],
    by: By = "",
    note: Annotated[str, typer.Option(help="what you found, stored in the ledger")] = "",
    server: Server = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge an incident. This restores no grant.

    Example: `rollout acknowledge ramps I-1 --by ana --note "snow on the lens"`
    """
    request = Question(
        "POST",
        path_of(rollout, "incidents", incident, "acknowledgement"),
        lambda context: incidents.acknowledge(
            context.database, context.caller, rollout, incident, at=context.at, note=note
        ),
        {"note": note},
    )
    _tell(person(server, by, None, at).answer(request), as_json=as_json)


def _named(site: list[str] | None, window: list[str] | None, *, every: bool) -> Named:
    with refusals():
        if not (site or window or every):
            raise ValueError("no cells are named; add --site NAME, --window NAME or --all")
    return Named((), tuple(site or ()), tuple(window or ()), every)


def _sent(named: Named) -> dict[str, Any]:
    return {
        "sites": list(named.sites),
        "windows": list(named.windows),
        "all": named.everything,
    }


def _tell(answers: list[Any], *, as_json: bool) -> None:
    (result,) = answers
    tell(result, written_text(result), as_json=as_json)
