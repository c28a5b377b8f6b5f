"""The outcome of a campaign: a row of docs/reliability.toml, and a table for the terminal."""

from tests.faults.kills.kill_campaign import HEADINGS
from tests.faults.kills.process_marks import ACTIONS
from tests.faults.outcomes import FaultOutcome, current_commit, today

FAULT = "SIGKILL at random instants, two replicas under traffic"
NAMES = {"migrate": "migration", "backup": "back-up", "approve": "approval"}


def build_outcome(result, command):
    """Return the outcome of a campaign, whole or so far."""
    faults = result.counts.faults
    return FaultOutcome(
        fault=FAULT,
        engine=result.engine,
        tried=result.total,
        lost=faults["lost"],
        doubled=faults["doubled"],
        wider=faults["wider"],
        late_stops=faults["late_stops"],
        recovery_seconds=round(result.worst_recovery, 2),
        command=command,
        date=today(),
        commit=current_commit(),
        note=describe_outcome(result),
    )


def describe_outcome(result):
    """Return what was killed in the midst of what, and what was looked at."""
    counts = result.counts
    shares = ", ".join(f"{NAMES.get(name, name)} {result.kills[name]}" for name in ACTIONS)
    comparison_text = (
        f"{counts.records:,} records, {counts.events:,} events and {counts.answers:,} answers"
        f" compared, {counts.stopped_answers:,} of them under a stop"
    )
    ends = [f"{faults:,} other faults" for faults in [counts.faults["broken"]] if faults]
    ends += [text.partition(":")[0] + " failed" for text in result.final_faults]
    end = "; ".join(ends) or "`doctor --rebuild` and `ledger verify` find nothing"
    end = end if result.is_whole else "not at its end yet"
    end += ", interrupted" if result.is_interrupted else ""
    return f"kills inside {shares}; {comparison_text}; {end}"


def describe_result(result):
    """Return the table of a campaign."""
    counts = result.counts
    lines = [
        f"{result.engine}, seed {result.seed}: {result.total} kills in {result.seconds:.0f} s",
        *(
            f"  {action:8} {result.kills[action]:4} inside, {result.missed[action]:3} beside, "
            f"ready after at most {max(result.recoveries[action], default=0):.2f} s, "
            f"{len(result.points[action])} points"
            for action in ACTIONS
        ),
        f"  compared {counts.records:,} records, {counts.events:,} events",
        f"  judged {counts.answers:,} answers, {counts.model_answers:,} of them model",
        f"  asked {counts.stopped_answers:,} times under a stop",
        "  " + ", ".join(f"{heading} {counts.faults[heading]}" for heading in HEADINGS),
        *(f"  FAULT {fault}" for fault in result.faults),
    ]
    return "\n".join(lines)
