"""Ten minutes signed in to the live demo: `make demo-soak`."""

import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.first_hour.demo_visit import DemoVisit, open_browser, start_demo
from tests.first_hour.terminals import terminals_in
from tests.first_hour.test_tutorial import free_port

MINUTES = 10
MAX_WAIT_SECONDS = 30  # issue 13: something to approve is there within half a minute
MAX_END_SECONDS = 5


def run_soak(home, minutes):
    """Keep five users signed in and at work; return what happened, in words."""
    with terminals_in(home) as terminals, open_browser() as browser:
        links = start_demo(terminals, free_port())
        visit = DemoVisit(links, browser)
        try:
            while visit.seconds < 60 * minutes:
                visit.act()
            text = describe_visit(visit)
        finally:
            visit.close()
        pressed = time.monotonic()
        terminals.interrupt("demo")
        end_seconds = time.monotonic() - pressed
    assert visit.longest_wait <= MAX_WAIT_SECONDS, text
    assert end_seconds <= MAX_END_SECONDS, f"{text}; Ctrl-C took {end_seconds:.1f} s"
    return f"{text}; Ctrl-C ended it in {end_seconds:.1f} s"


def describe_visit(visit):
    """Return the figures of a visit; fail if nothing that operators approved was applied."""
    kinds = Counter(visit.fetch_proposal(name)["kind"] for name in visit.list_applied())
    assert kinds, visit.approvers_by_proposal
    both = sum(len(names) == 2 for names in visit.approvers_by_proposal.values())
    slowest = max(visitor.slowest for visitor in visit.visitors)
    where = "and a Chromium window " if visit.browser_visitor else ""
    return (
        f"5 users {where}signed in for {visit.seconds / 60:.0f} minutes, none signed out; "
        f"{visit.pages} pages, the slowest in {slowest:.1f} s; "
        f"{len(visit.approvers_by_proposal)} proposals approved, {both} of them by both operators; "
        f"applied: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}; "
        f"at most {visit.longest_wait:.0f} s without something to approve"
    )


def main():
    """Run the soak for the minutes of the command line; print what happened."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    with TemporaryDirectory(prefix="rollout-soak-") as home:
        sys.stdout.write(f"{run_soak(Path(home), minutes)}\n")


if __name__ == "__main__":
    main()
