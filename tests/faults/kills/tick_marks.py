"""A replica's process of ticks, which marks each tick from the claim of its slot to its end."""

import sys
from time import monotonic

from rollout import faults
from rollout.live.tick_passes import Ticker
from rollout.worker import tick_process
from tests.faults.kills.process_marks import open_region


def mark_ticks(marks):
    claim, tick = Ticker._claim_slot, Ticker.tick

    def claim_marked(self, *arguments):
        is_claimed = claim(self, *arguments)
        if is_claimed:
            marks.begin("tick")
            self.marked_at = monotonic()
        return is_claimed

    def tick_marked(self, *arguments, **options):
        self.marked_at = None
        try:
            return tick(self, *arguments, **options)
        finally:
            if self.marked_at is not None:
                marks.end("tick", monotonic() - self.marked_at)

    Ticker._claim_slot, Ticker.tick = claim_marked, tick_marked


def main(path, number):
    marks = open_region(path, int(number))
    mark_ticks(marks)
    with faults.install_action(marks.set_point):
        tick_process.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
