"""A supervised box: a person confirms, and the box waits for it no longer than the policy says.

The case stands in the review queue. Past `answer_within` the charter's `unanswered` is done.
"""

import argparse
import time

from service import Service, action, question

ACTIONS = {"bear": "siren", "none": "nothing"}


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Ask about one picture, wait for a person, act, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the service is")
    parser.add_argument("--key", required=True, help="an API key with the role ingest")
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--version", required=True, help="of the model")
    parser.add_argument("--case", required=True, help="your own key of the picture")
    parser.add_argument("--label", required=True, help="what the model says")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks")
    asked = parser.parse_args(arguments)
    with Service(asked.url, asked.key, asked.rollout, transport) as service:
        told = service.ask(question(asked.site, asked.case, asked.version, asked.label, 0.9))
        done = wait(service, asked.case, told, asked.every)
        service.send(action(asked.case, done, "person"))
    print(f"{asked.case}: {told['exposure']}, did {done}")


def wait(service: Service, case: str, told: dict[str, list[dict[str, str]]], every: float) -> str:
    """Return the action of the person's label, or what is done when nobody answers in time."""
    if not told["unanswered"]:
        raise SystemExit("the policy has no `answer_within`: nothing says how long to wait")
    (left,) = told["unanswered"]
    end = time.monotonic() + float(left["answer_within"])
    while time.monotonic() < end:
        label = service.verdict(case, left["lever"])
        if label is not None:
            return ACTIONS[label]
        time.sleep(every)
    return left["action"]


if __name__ == "__main__":
    main()
