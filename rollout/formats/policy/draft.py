"""`rollout init`: the smallest policy that fits recorded files, with comments that teach.

It holds what the records show (levers, labels, sites, whether cases come in episodes) and says
where only the author can know: which label must not be missed, whether people saw the model.
"""

import json
import re
from collections.abc import Iterator, Sequence
from math import ceil, floor

import polars as pl

from rollout.core.calendar.sites import ALWAYS, OTHER, SHADOW
from rollout.formats.policy import scalars
from rollout.tally.frames import VALUE, Records

LINE = 0.95
_PLAIN = re.compile(r"[\w.+][\w .+-]*", re.ASCII)
_MANY = 20  # more different numbers than this are measured, not labels
_GRACE_DAYS = 1.0  # the default


def draft_policy(records: Records, *, rollout: str, timezone: str) -> str:
    """Return the text of a policy that loads and fits `records`.

    Args:
        records: read files with at least one case; its levers become the policy's.
        rollout: id of the rollout.
        timezone: zone of the sites.

    Raises:
        ValueError: the id or the zone is none, or there is no site or no answer to name.
    """
    scalars.identifier(rollout), scalars.zone(timezone)
    blocks = (
        _head(rollout, timezone),
        _levers(records),
        _sites(records),
        _evidence(records),
        _gates(records),
    )
    return "\n".join(line for block in blocks for line in block) + "\n"


def _head(rollout: str, timezone: str) -> Iterator[str]:
    yield "# Drafted from recorded files. `rollout plan` says what it will ask for, and"
    yield "# docs/policy.md what else a policy can say."
    yield f"rollout: {rollout}"
    yield f"timezone: {timezone}"


def _levers(records: Records) -> Iterator[str]:
    yield "levers:"
    for lever in records.levers:
        answers = _answers(records, lever)
        if not answers:
            raise ValueError(f"no record answers {lever}; read files that have predictions")
        if len(answers) > _MANY and all(_is_number(text) for text in answers):
            yield from _number(lever, [float(text) for text in answers])
        else:
            yield f"  - id: {_quoted(lever)}"
            yield f"    labels: [{', '.join(_quoted(label) for label in answers)}]"


def _answers(records: Records, lever: str) -> list[str]:
    """Return what people or model said, most frequent first, without what no policy can hold."""
    column = VALUE + lever
    frames = [frame.select(column) for frame in (records.decisions, records.predictions)]
    counts = pl.concat(frames).drop_nulls().group_by(column).len()
    ordered = counts.sort(["len", column], descending=[True, False])[column].to_list()
    return [text for text in ordered if _loads(text)]


def _loads(label: str) -> bool:
    try:
        return scalars.label(label.strip()) == label
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    try:
        scalars.number(text)
    except ValueError:
        return False
    return True


def _number(lever: str, said: Sequence[float]) -> Iterator[str]:
    low, high = floor(min(said)), ceil(max(said))
    yield f"  - id: {_quoted(lever)}"
    yield "    # within 5% of the person's number is agreement; say in which unit it is"
    yield f"    number: {{in: units, from: {low}, to: {max(high, low + 1)}, tolerance: 5%}}"


def _quoted(text: str) -> str:
    """Write a text so that it is read as itself: quoted unless it is plainly a word."""
    is_plain = _PLAIN.fullmatch(text) and not text.endswith((" ", "-"))
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _sites(records: Records) -> Iterator[str]:
    sites = records.cases["site"].drop_nulls().unique().sort().to_list()
    valid_sites = [site for site in sites if _names(site)]
    if not valid_sites:
        raise ValueError("no case has a site; map a column to `site`")
    yield f"sites: [{', '.join(_quoted(site) for site in valid_sites)}]"
    excluded = [site for site in sites if site not in valid_sites]
    if excluded:
        yield f"# left out, since no policy can name them: {', '.join(map(repr, excluded))}"
    yield '# windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]   # judged apart'


def _names(site: str) -> bool:
    try:
        return scalars.name(site.strip()) == site and site not in {ALWAYS, OTHER, SHADOW}
    except ValueError:
        return False


def _evidence(records: Records) -> Iterator[str]:
    yield "evidence:"
    has_episode = records.cases["episode"].is_not_null()
    if has_episode.any():
        yield "  unit: episode    # the records name them: a burst counts once"
        if not has_episode.all():
            yield "  # cases without one: ten times the usual burst makes one of them"
            yield "  episode_span: 10m"
    else:
        yield "  unit: case    # write episode if cases come in bursts, and an episode_span"
    grace_days = _late(records)
    if grace_days > _GRACE_DAYS:
        yield "  # 95 of 100 recorded verdicts are in by then; gates wait for it"
        yield f"  grace: {grace_days:.0f}d"
    if (records.decisions["exposure"] == "unknown").any():
        yield "  # as it stands the recorded verdicts are no evidence; write blind if nobody saw"
        yield "  # the model's answer before deciding"
        yield "  outside: unknown"


def _late(records: Records) -> float:
    """Return within how many days 95 % of the verdicts came after their case, rounded up."""
    cases = records.cases.select("case_key", "occurred_at")
    joined = records.decisions.join(cases, on="case_key").drop_nulls(["at", "occurred_at"])
    delays = joined.select((pl.col("at") - pl.col("occurred_at")).dt.total_seconds() / 86400)
    delay_quantile = delays.to_series().quantile(0.95, interpolation="higher")
    return 0.0 if delay_quantile is None else float(ceil(delay_quantile))


def _gates(records: Records) -> Iterator[str]:
    yield "gates:"
    yield "  - to: supervised    # people confirm; add a gate to autonomous once this has held"
    yield "    require:"
    yield f"      - {{measure: agreement, at_least: {LINE * 100:g}%}}"
    has_several_levers = len(records.levers) > 1
    for lever in records.levers:
        rare_labels = _rare(records, lever)
        if rare_labels:
            label_texts = ", ".join(
                f"{_quoted(label)} ({share * 100:.2g} %)" for label, share in rare_labels[:4]
            )
            lever_text = f"lever: {_quoted(lever)}, " if has_several_levers else ""
            yield f"      # rare: {label_texts}"
            yield "      # a model that never says them may pass; where one must not be missed, add"
            yield (
                f"      # - {{measure: recall, {lever_text}label: {_quoted(rare_labels[0][0])},"
                " at_least: 80%}"
            )


def _rare(records: Records, lever: str) -> list[tuple[str, float]]:
    """Return the labels, rarest first, so rare that agreement alone can pass without them."""
    counts = records.decisions[VALUE + lever].drop_nulls().value_counts()
    if counts.height > _MANY and all(_is_number(text) for text in counts[VALUE + lever]):
        return []
    total = int(counts["count"].sum())
    shares = [(label, n / total) for label, n in counts.sort("count", VALUE + lever).iter_rows()]
    return [(label, share) for label, share in shares if share <= 1 - LINE and _loads(label)]
