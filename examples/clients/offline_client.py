"""A client without a network by day: at night it fetches the scope and sends its records.

By day it decides by that snapshot for as long as the site's lease, on its own boot clock. After
that a human decides, or the client takes the charter's action for unanswered cases. After harm it
hands all further cases to a human, until a newer snapshot says otherwise.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import Service, build_action, build_parser, build_question

from rollout_client import EdgeClient, FileHeadStore, build_assignment_fields

ACTIONS = {"bear": "siren", "none": "nothing"}


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Run one night and the day after it."""
    parser = build_parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for the spool and the head")
    parser.add_argument("--case", action="append", default=[], help="KEY=LABEL; repeatable")
    parser.add_argument("--harm", default="", help="KEY=HARM: the case after which to hand over")
    options = parser.parse_args(arguments)
    harmed_key, _, harm = options.harm.partition("=")
    spool = options.folder / "spool.ndjson"
    with Service(options.url, options.key, options.rollout, transport) as service:
        client = build_client(service, options.site, options.folder)
        client.renew()  # at night, with a network
        for case in options.case:  # by day, without one
            key, _, label = case.partition("=")
            decide_case(client, spool, key, options.version, label)
            if key == harmed_key:
                hand_over(client, spool, key, harm)
        results = send_spool(service, spool)  # the next night
    statuses = ", ".join(sorted({result["status"] for result in results}))
    print(f"sent {len(results)}: {statuses}")


def build_client(service: Service, site: str, folder: Path) -> EdgeClient:
    """Return the client. The ledger head survives a restart, a lease does not."""
    return EdgeClient(
        site,
        fetch_scope=lambda head: service.fetch_scope(
            site=site,
            form="table-1",
            ledger_revision=head.revision,
            ledger_hash=head.hash,
            ledger_code=head.code,
        ),
        head_store=FileHeadStore(folder / "head.json"),
        latch_store=FileHeadStore(folder / "latch.json"),
    )


def decide_case(client: EdgeClient, spool: Path, key: str, version: str, label: str) -> None:
    """Decide one picture without a network, and spool its records."""
    at = datetime.now(UTC)
    assignment = client.decide(client.site, at, version, key, confidence=0.9)
    question = build_question(client.site, key, version, label, 0.9)
    prediction = {"kind": "prediction", "key": key, "version": version, **question["prediction"]}
    prediction |= build_assignment_fields(assignment)
    case = {"kind": "case", "key": key, "site": client.site, "occurred_at": at.isoformat()}
    items = [case, prediction]
    if assignment.decider == "model":
        items.append(client.build_action(key, "alarm", ACTIONS[label], version))
    else:
        items += [build_action(key, rule.action, "person") for rule in assignment.fallbacks]
    with spool.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
    print(f"{key}: {assignment.decider} ({assignment.reason})")


def hand_over(client: EdgeClient, spool: Path, key: str, harm: str) -> None:
    """Let a human decide from now on, and spool what happened."""
    client.hand_over()  # first: the service hears of it only at night
    at = datetime.now(UTC).isoformat()
    with spool.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "outcome", "key": key, "at": at, "harm": harm}) + "\n")


def send_spool(service: Service, spool: Path) -> list[dict[str, Any]]:
    """Send the spooled records, then delete the spool; sending twice is safe."""
    lines = spool.read_text(encoding="utf-8").splitlines() if spool.exists() else []
    results = service.send_lines(lines)
    spool.unlink(missing_ok=True)
    return results


if __name__ == "__main__":
    main()
