"""An autonomous client: acts at once where the model decides, and sends the permit.

The service draws which cases are audited once it has the prediction, and says nothing of it. On any
error or timeout, a human decides.
"""

from datetime import datetime, timedelta

import httpx2
from service import Service, build_action, build_parser, build_question

from rollout_client.leases import MachineClocks, compute_time_left, estimate_service_time

ACTIONS = {"bear": "siren", "none": "nothing"}
ACTION_TIME = timedelta(milliseconds=200)  # from the response to the siren


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Request an assignment for one picture, and act if the model decides."""
    parser = build_parser(__doc__)
    parser.add_argument("--case", required=True, help="your key of the picture")
    parser.add_argument("--label", required=True, help="the model's answer")
    options = parser.parse_args(arguments)
    clocks = MachineClocks()
    question = build_question(options.site, options.case, options.version, options.label, 0.9)
    with Service(options.url, options.key, options.rollout, transport) as service:
        sent_at = clocks.read()  # before the request: the lease starts here
        try:
            assignment = service.request_assignment(question)
        except httpx2.HTTPError as error:
            print(f"{options.case}: a human decides ({error})")
            return
        answered_at = clocks.read()
        lease = timedelta(seconds=assignment["lease"])
        time_left = compute_time_left(lease, sent_at, answered_at, ACTION_TIME)
        if assignment["decider"] != "model" or time_left <= timedelta(0):
            print(f"{options.case}: a human decides ({assignment['reason']})")
            return
        action = ACTIONS[options.label]  # sound the siren here
        issued_at = datetime.fromisoformat(assignment["issued_at"])
        at = estimate_service_time(issued_at, answered_at, clocks.read())  # not this clock's time
        record = build_action(options.case, action, "model") | {"at": at.isoformat()}
        service.send(record | {"version": options.version, "permit": assignment["permit"]})
    print(f"{options.case}: did {action}")


if __name__ == "__main__":
    main()
