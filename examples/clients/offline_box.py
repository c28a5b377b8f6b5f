"""A box without a network by day: at night it fetches the scope and sends what it spooled.

By day it decides by that snapshot, for as long as the site's lease by its own boot clock; then
people decide, or what the charter does when nobody answers.
"""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import Service, action, question

from rollout.client.client import Box
from rollout.client.seen_heads import HeadFile
from rollout.core.scope.assignment import Question
from rollout.formats.policy.reader import load_policy

ACTIONS = {"bear": "siren", "none": "nothing"}


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Live through one night and the day after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the service is")
    parser.add_argument("--key", required=True, help="an API key with the role ingest")
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--version", required=True, help="of the model")
    parser.add_argument("--folder", type=Path, required=True, help="for the spool and the head")
    parser.add_argument("--case", action="append", default=[], help="as KEY=LABEL; several by day")
    asked = parser.parse_args(arguments)
    spool = asked.folder / "spool.ndjson"
    with Service(asked.url, asked.key, asked.rollout, transport) as service:
        box = box_of(service, asked.site, asked.folder)
        box.renew()  # at night: the network is there
        for said in asked.case:  # by day: it is not
            key, _, label = said.partition("=")
            live(box, spool, key, asked.version, label)
        told = send(service, spool)  # the next night
    print(f"sent {len(told)}: {', '.join(sorted({one['status'] for one in told}))}")


def box_of(service: Service, site: str, folder: Path) -> Box:
    """Return the box; the highest head outlives a restart, a lease never does."""
    return Box(
        site,
        fetch=lambda head: service.scope(
            site=site, ledger_revision=head.revision, ledger_hash=head.hash
        ),
        load=load_policy,
        heads=HeadFile(folder / "head.json"),
    )


def live(box: Box, spool: Path, key: str, version: str, label: str) -> None:
    """Decide one picture without any network, and write down what there is to send."""
    at = datetime.now(UTC)
    told = box.decide(Question(box.site, at, version, key, confidence=0.9))
    said = question(box.site, key, version, label, 0.9)
    prediction = {"kind": "prediction", "key": key, "version": version, **said["prediction"]}
    case = {"kind": "case", "key": key, "site": box.site, "occurred_at": at.isoformat()}
    items = [case, prediction]
    if told.decider == "model":
        items.append(action(key, ACTIONS[label], "model", version, box.permit))
    else:
        items += [action(key, nobody.action, "person") for nobody in told.unanswered]
    with spool.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
    print(f"{key}: {told.decider} ({told.because})")


def send(service: Service, spool: Path) -> list[dict[str, Any]]:
    """Send the spool, and forget it once it is answered; sending it twice does no harm."""
    lines = spool.read_text(encoding="utf-8").splitlines() if spool.exists() else []
    told = service.send_lines(lines)
    spool.unlink(missing_ok=True)
    return told


if __name__ == "__main__":
    main()
