"""A supervised client: waits for the human decision, at most `answer_within` seconds.

The case is in the review queue. After that time the client takes the action in `unanswered`.
"""

import time

from service import Service, build_action, build_parser, build_question

ACTIONS = {"bear": "siren", "none": "nothing"}


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Request an assignment for one picture, wait for the decision, and act."""
    parser = build_parser(__doc__)
    parser.add_argument("--case", required=True, help="your key of the picture")
    parser.add_argument("--label", required=True, help="the model's answer")
    parser.add_argument("--every", type=float, default=2.0, help="polling interval in seconds")
    options = parser.parse_args(arguments)
    question = build_question(options.site, options.case, options.version, options.label, 0.9)
    with Service(options.url, options.key, options.rollout, transport) as service:
        assignment = service.request_assignment(question)
        action = wait_for_action(service, options.case, assignment["unanswered"], options.every)
        service.send(build_action(options.case, action, "person"))
    print(f"{options.case}: {assignment['exposure']}, did {action}")


def wait_for_action(
    service: Service, case: str, unanswered: list[dict[str, str]], interval: float
) -> str:
    """Return the action of the human decision, or the one for unanswered cases."""
    if not unanswered:
        raise SystemExit("the policy has no `answer_within`; add it to limit the waiting time")
    (fallback,) = unanswered
    end = time.monotonic() + float(fallback["answer_within"])
    while time.monotonic() < end:
        label = service.fetch_decision(case, fallback["lever"])
        if label is not None:
            return ACTIONS[label]
        time.sleep(interval)
    return fallback["action"]


if __name__ == "__main__":
    main()
