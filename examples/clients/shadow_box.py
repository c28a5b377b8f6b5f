"""A box in shadow: it asks for every picture, says what the model predicted, and people decide.

Written so from the first day, widening needs no new code here: the answer just changes.
"""

import argparse

from service import Service, question


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Ask about one picture and print who decides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="where the service is")
    parser.add_argument("--key", required=True, help="an API key with the role ingest")
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--version", required=True, help="of the model")
    parser.add_argument("--case", required=True, help="your own key of the picture")
    parser.add_argument("--label", required=True, help="what the model says")
    asked = parser.parse_args(arguments)
    with Service(asked.url, asked.key, asked.rollout, transport) as service:
        told = service.ask(question(asked.site, asked.case, asked.version, asked.label, 0.9))
    print(f"{asked.case}: {told['decider']} ({told['reason']})")


if __name__ == "__main__":
    main()
