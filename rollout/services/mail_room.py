"""The demo: the mail room replayed, and its story told with the figures that came out."""

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from json import loads
from textwrap import fill, wrap
from zoneinfo import ZoneInfo

from rollout.core.places import SHADOW
from rollout.formats.record_files import Sources
from rollout.reports.facts import Facts
from rollout.reports.hindsight import Hindsight
from rollout.reports.stages import CellStages
from rollout.reports.words import local, number, of, per_cent, several, span_text, unbroken
from rollout.services.replaying import Order, Progress, ReplayedFiles, replay
from rollout.services.reporting import facts_of_replay, report_files
from rollout.services.shipped import shipped

WIDTH = 79
ARROW = " → "
WHY = {  # what the records' makers did in the cells that the story is about
    ("halifax", "night"): "its scanner wears through the week and is cleaned on Mondays",
    ("lisbon", "day"): "on 20 October the counters begin to use a form that shifts the digit",
}
UNBROKEN = "\N{NO-BREAK SPACE}"


def order() -> Order:
    """Return what the demo replays: the shipped records under the shipped policy."""
    records = shipped("mail-room")
    about = loads((records / "about.json").read_text(encoding="utf-8"))
    return Order(
        policy=shipped("config") / "policies" / "mail-room.yaml",
        sources=Sources(
            predictions=records / "predictions.csv.gz",
            decisions=records / "decisions.csv.gz",
            cases=records / "cases.csv.gz",
            outcomes=records / "outcomes.csv.gz",
        ),
        trained_until={
            name: datetime.fromisoformat(version["trained_until"])
            for name, version in about["versions"].items()
        },
    )


def play(progress: Progress | None = None) -> tuple[str, dict[str, bytes]]:
    """Replay the mail room; return its story for the terminal, and the report's files."""
    done = replay(order(), progress)
    facts = facts_of_replay(done)
    return story(done, facts), report_files(done, facts)


def story(done: ReplayedFiles, facts: Facts) -> str:
    """Tell what happened, so that somebody who has read nothing else understands it."""
    zones = {site.id: site.timezone for site in done.policy.sites}
    parts = (
        _beginning(done),
        _widened(facts, zones),
        _held(facts, zones),
        _narrowed(facts, zones),
        _taken_over(facts),
        _price(facts),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _beginning(done: ReplayedFiles) -> Iterator[str]:
    letters = number(done.records.cases.height)
    audited = per_cent(done.policy.stages[-1].audit, 0)
    yield f"THE MAIL ROOM: {len(done.policy.sites)} offices, {letters} letters, two versions"
    yield from _told(
        "A model reads the first digit of a handwritten postcode, and with it into which of four "
        "bins the letter goes. It starts in shadow: clerks decide, it reads along. Where it has "
        "shown that it agrees with them it may propose (supervised), later decide by itself, with "
        f"{audited} of its letters read again (autonomous)."
    )
    yield from _told(
        "Real: the digits, the classifier, its mistakes. Simulated: offices, hours, scanners, the "
        "new form, clerks, and every approval (given 4 hours after a proposal). Days and times "
        "are each office's own."
    )


def _told(text: str, indent: str = "") -> list[str]:
    """Return a text as lines that fit a terminal; a number and its per cent sign stay together."""
    lines = wrap(unbroken(text), WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [line.replace(UNBROKEN, " ") for line in lines]


def _widened(facts: Facts, zones: dict[str, str]) -> Iterator[str]:
    went = [cell for cell in facts.stages if cell.widened]
    yield (
        f"1 WIDENED: {len(went)} of {len(facts.stages)} cells (an office by day or by night), "
        "each on its own evidence"
    )
    for cell in went:
        path = fill(
            _path(cell, zones[cell.site]),
            WIDTH,
            initial_indent=f"  {cell.site + ' ' + cell.window:14}",
            subsequent_indent=" " * 16,
        )
        yield path.replace(UNBROKEN, " ")


def _path(cell: CellStages, zone: str) -> str:
    """Return the stages of a cell with the day on which each began, shadow left out at first."""
    spans = [(key, list(group)) for key, group in groupby(cell.intervals, lambda i: i.stage)]
    steps = [(stage, group[0].since) for stage, group in spans]
    first = steps[1:] if steps[0][0] == SHADOW else steps
    steps_in_words = [f"{_day(since, zone)} {stage}" for stage, since in first]
    return ARROW.join(step.replace(" ", UNBROKEN) for step in steps_in_words)


def _day(at: datetime, zone: str) -> str:
    shown = at.astimezone(ZoneInfo(zone))
    return f"{shown.day} {shown:%b}"


def _held(facts: Facts, zones: dict[str, str]) -> Iterator[str]:
    held = [cell for cell in facts.stages if not cell.widened]
    names = ", ".join(f"{cell.site} {cell.window}" for cell in held) or "none"
    yield f"2 HELD in shadow to the end: {names}"
    for cell in held:
        yield from _why(cell.site, cell.window)
        yield from _held_cell(facts, cell, zones[cell.site])


def _why(site: str, window: str) -> list[str]:
    """Say what was done to the records there; the engine was not told."""
    if (site, window) not in WHY:
        return []
    return _told(f"{site} {window}: {WHY[site, window]}", "  ")


def _held_cell(facts: Facts, cell: CellStages, zone: str) -> Iterator[str]:
    for known in facts.evidence:
        if (known.site, known.window) == (cell.site, cell.window) and known.gate is not None:
            for asked in known.gate.conditions:
                share = f"{number(asked.counts[0])} of {number(asked.n)}"
                rate, line = per_cent(asked.estimate), per_cent(asked.line, 0)
                yield f"  {known.version}: {share} agree, {rate}; asked for is proof of {line}"
    naive = [n for n in facts.naive if (n.site, n.window) == (cell.site, cell.window)]
    if naive:
        yield "  Rules that people commonly write would have opened it, and left it open:"
    for rule in naive:
        wrong = f"{number(rule.wrong.count)} of {number(rule.wrong.n)} letters misrouted"
        yield f"    {rule.version}, {_day(rule.opened_at, zone)}, when {rule.rule}:"
        yield f"      {wrong}{_clerks(rule.people_wrong.count)}"


def _clerks(wrong: int | None) -> str:
    """Say what people would have got wrong on the same letters; nothing where nobody knows."""
    return "" if wrong is None else f" (clerks would have: {number(wrong)})"


def _narrowed(facts: Facts, zones: dict[str, str]) -> Iterator[str]:
    yield f"3 NARROWED by itself: {several(len(facts.hindsights), 'time')}"
    for where in dict.fromkeys((found.site, found.window) for found in facts.hindsights):
        yield from _why(*where)
    for found in facts.hindsights:
        yield from _narrowing(found, zones[found.site])


def _narrowing(found: Hindsight, zone: str) -> Iterator[str]:
    at = local(found.narrowed_at, zone)
    step = f"{found.version} {found.came_from}{ARROW}{found.to}"
    yield f"  {found.site} {found.window}, {at}: {step}"
    yield f"    guard: {found.guard}; of what it was shown, {of(found.shown)} against it"
    price = found.price
    if not price.cases:
        return
    delay = span_text(found.narrowed_at - found.began_at)
    yield f"    the fault began about {local(found.began_at, zone)}; {delay} until it was noticed:"
    yield (
        f"    {several(price.cases, 'letter')} decided by the model, "
        f"{price.wrong_action.count} misrouted{_clerks(price.people_wrong_action)}"
    )
    if found.seen_at is not None and found.price_if_seen is not None:
        sooner = span_text(found.seen_at - found.began_at)
        wrong = several(found.price_if_seen.wrong_action.count, "misrouted letter")
        yield f"    somebody who saw every verdict would have noticed after {sooner} and"
        yield f"    {wrong}: the difference is the price of auditing a part"


def _taken_over(facts: Facts) -> Iterator[str]:
    yield "4 THE NEW VERSION, trained on the new form too, starts in shadow like the first"
    kinds = {"VersionFirstUsed", "TakenOver", "Widened"}
    for happened in facts.timeline:
        if happened.version == "v2" and happened.kind in kinds:
            where = f"{happened.site} {happened.window}: " if happened.site else ""
            zone = "" if happened.site else f" ({facts.identity.timezone})"
            yield f"  {happened.local:>16}  {where}{happened.brief}{zone}"


def _price(facts: Facts) -> Iterator[str]:
    price = facts.price
    unseen = number(price.cases - price.audited)
    letters = number(price.cases)
    yield f"5 THE PRICE: {letters} letters decided by the model, {unseen} seen by nobody"
    people = price.people_wrong_action
    beside = "" if people is None else f" (clerks would have: {people} of {price.people_known:,})"
    yield f"  {number(price.wrong_action.count)} misrouted{beside}"
    out = [r for r in facts.people.reviewers if r.stands_out]
    if out and out[0].with_outcome.rate is not None:
        wrong = per_cent(1 - out[0].with_outcome.rate)
        who = f"{len(out)} of {several(len(facts.people.reviewers), 'clerk')} stand out"
        yield from _told(
            f"{who}, most of all {out[0].name}, wrong in {wrong} of letters. That clerk's office "
            "waits longer: of two who differ, agreement can't tell who is wrong.",
            "  ",
        )
