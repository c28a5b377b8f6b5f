"""A client in shadow: requests an assignment for every picture, and a human decides.

Start with this code: widening changes the answer, not the client.
"""

from service import Service, build_parser, build_question


def main(arguments: list[str] | None = None, transport: object = None) -> None:
    """Request an assignment for one picture and print who decides."""
    parser = build_parser(__doc__)
    parser.add_argument("--case", required=True, help="your key of the picture")
    parser.add_argument("--label", required=True, help="the model's answer")
    options = parser.parse_args(arguments)
    question = build_question(options.site, options.case, options.version, options.label, 0.9)
    with Service(options.url, options.key, options.rollout, transport) as service:
        assignment = service.request_assignment(question)
    print(f"{options.case}: {assignment['decider']} ({assignment['reason']})")


if __name__ == "__main__":
    main()
