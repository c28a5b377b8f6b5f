"""An autonomous box: where the model decides it acts at once, and brings the permit back.

An audited case goes to the blind queue as well; the box does not wait for it. Any doubt, also no
network, leaves the case to people.
"""

import argparse
from datetime import timedelta

import httpx
from service import Service, action, question

from rollout.client.clocks import MachineClocks
from rollout.client.leases import left

ACTIONS = {"bear": "siren", "none": "nothing"}
TAKES = timedelta(milliseconds=200)  # from here to the siren


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Ask about one picture; act if the model decides, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the service is")
    parser.add_argument("--key", required=True, help="an API key with the role ingest")
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--version", required=True, help="of the model")
    parser.add_argument("--case", required=True, help="your own key of the picture")
    parser.add_argument("--label", required=True, help="what the model says")
    asked = parser.parse_args(arguments)
    clocks = MachineClocks()
    with Service(asked.url, asked.key, asked.rollout, transport) as service:
        sent = clocks.read()  # before the question: the lease is counted from here
        try:
            told = service.ask(question(asked.site, asked.case, asked.version, asked.label, 0.9))
        except httpx.HTTPError as error:
            print(f"{asked.case}: people decide ({error})")
            return
        rest = left(timedelta(seconds=told["lease"]), sent, clocks.read(), TAKES)
        if told["decider"] != "model" or rest <= timedelta(0):
            print(f"{asked.case}: people decide ({told['reason']})")
            return
        done = ACTIONS[asked.label]  # here the siren sounds
        service.send(action(asked.case, done, "model", asked.version, told["permit"]))
    print(f"{asked.case}: did {done}{', audited' if told['audited'] else ''}")


if __name__ == "__main__":
    main()
