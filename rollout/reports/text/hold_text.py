"""What an approved proposal waits for, in words."""

from collections.abc import Callable
from datetime import datetime

from rollout.core.scope.proposal_holds import ProposalHold

TICK = "tick"


def describe_hold(hold: ProposalHold, format_time: Callable[[datetime], str]) -> str:
    """Describe the end of a hold, with its time where it is known."""
    texts = {
        "observing": "end of observing: this policy grants nothing",
        "stop": "resume of the stop that holds the cell",
        "freeze": f"end of the freeze ({hold.reason})",
        "start": "first day that the policy's limits allow",
        "alarm": "end of a guard's alarm there",
        "wave": f"opening of its wave ({hold.reason})",
        "settling": "recently widened cells to settle",
        TICK: "next tick",
    }
    until_text = "" if hold.until is None else f", {format_time(hold.until)}"
    return f"{texts[hold.kind]}{until_text}"
