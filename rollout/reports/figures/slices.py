"""Slices in which a version differs from people more than elsewhere, found and not asked for.

Looked at are site, window, hour and weekday on the site's clock, people's label, the person who
judged, the attributes that the policy names, and pairs of site, window and these attributes. Each
value is a slice, and each slice is held against the rest *in the same cells*, so that a hard site
makes none of its hours or people look bad. What is found is taken out before the next is looked
for: otherwise one bad scanner would be named ten times, as a site, a night, a person on that
shift. So a careless person, who differs wherever they sit, is told from a bad model, which differs
whoever sits there. Labels come last: that some are harder than others is nearly always so, and
they have a table of their own.

Each unit counts once, by the first verdict on its first case: no burst counts twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import case_facts
from rollout.reports.inputs.slice_units import (
    ABSENT,
    LABEL,
    SMALLEST,
    Codes,
    Dimension,
    Name,
    dimensions,
    first_verdicts,
    with_clock,
)
from rollout.reports.statistics.intervals import EXACT, clopper_pearson
from rollout.reports.statistics.strata import Table, bound, table, tail, z_scores
from rollout.reports.text.formatting import cell_name, number, per_cent
from rollout.tally.frames import Records

Bools = NDArray[np.bool_]

ALPHA = 0.05
MOST = 10  # slices named of one version and lever
NEARLY = 0.9  # of the units of both in common: two names for one thing
SELDOM = 1e-6  # smaller chances are not told apart
WORTH_A_LOOK = 2.0  # standard deviations; less is never enough once many slices are looked at


@dataclass(frozen=True, slots=True)
class FoundSlice:
    """A slice in which a version differs from people more than elsewhere in the same cells.

    Attributes:
        names: what makes the slice, as (kind, value): one, or two that hold together.
        name: the same in words, with the place where all of it is in one.
        words: the finding as people say it.
        n, differ: units, and those on which model and person differ, without what was found before.
        share, low, high, method: of these units that differ, with an interval.
        elsewhere: what the share would be if these units were like the others in their cells.
        at_least: by how much the share is larger at least, with allowance for all that was
            looked at: what findings are ordered by.
        p: chance of so many if the slice were like the rest, before allowance for the others.
        also: other values that nearly the same units have, in words: these records can't tell
            which of them it is.
        model_right, people_right: of the divergences with a witness, whom it sides with; the
            witness is the outcome, else a second person. None without any.
        follows: `person` where witnesses show, at 95 %, that mostly people were wrong; `cases`
            where mostly the model was; empty where neither is shown.
    """

    names: Name
    name: str
    words: str
    n: int
    differ: int
    share: float
    low: float
    high: float
    method: str
    elsewhere: float
    at_least: float
    p: float
    also: tuple[str, ...]
    model_right: int | None
    people_right: int | None
    follows: str


@dataclass(frozen=True, slots=True)
class SliceSearch:
    """What was looked for in one version on one lever, and what was found.

    Attributes:
        version, lever: whose answers.
        n, differ: units looked at, and those on which model and person differ.
        looked_at: slices of at least `smallest` units, in all versions and levers together.
        alpha: the chance that anything at all is named when nothing differs.
        smallest: units that a slice needs.
        method: how a slice is judged.
        said: the chance of error in words.
        found: at most 10, the strongest first, labels behind all others.
    """

    version: str
    lever: str
    n: int
    differ: int
    looked_at: int
    alpha: float
    smallest: int
    method: str
    said: str
    found: tuple[FoundSlice, ...]


PHRASES = {
    "site": "{}",
    "window": "by {}",
    "hour": "from {}",
    "weekday": "on {}s",
    "label": "called {} by people",
}
FOLLOWS = {
    "person": "it follows the person, not the cases",
    "cases": "the model is wrong there",
    "": "",
}
METHOD = "exact one-sided test of the slice against the rest of the same cells, first of each unit"


def slice_searches(
    records: Records, cases: pl.DataFrame, policy: Policy
) -> tuple[SliceSearch, ...]:
    """Return what was looked for and found in every version and lever, versions in order."""
    facts = with_clock(case_facts(records, cases), policy)
    prepared = []
    for version in records.predictions["version"].unique().sort():
        for lever in policy.levers:
            frame = first_verdicts(records, facts, str(version), lever)
            prepared.append((str(version), lever.id, frame, dimensions(frame, policy, lever)))
    tested_count = sum(
        large_enough(dimension) for *_, dimensions in prepared for dimension in dimensions
    )
    return tuple(_search(*item, tested_count) for item in prepared)


def large_enough(cut: Dimension) -> int:
    """Return how many slices of a cut have enough units, and enough to be held against."""
    all_units = np.ones(len(cut.codes), dtype=bool)
    return int(np.sum(_usable(_counts(cut, all_units, all_units))))


@dataclass(frozen=True, slots=True)
class Suspect:
    """A slice of one cut that differs more than luck explains, by its counts.

    `left` are the units that nothing found before has, `units` those of them in the slice, both of
    shape (all units,); `also` names other values of nearly the same units.
    """

    cut: int
    code: int
    counts: Table
    at_least: float
    left: Bools
    units: Bools
    also: tuple[Name, ...] = ()


def named(cuts: tuple[Dimension, ...], differs: Bools, looked_at: int) -> list[Suspect]:
    """Return the slices that differ more than the rest, the strongest first, then labels.

    After each the units of it are taken out, and what is left is looked at anew, so that what
    comes later differs even without what came before. Once labels are looked at, nothing else is
    any more: each round is one more chance to be wrong.

    Args:
        cuts: of the same units.
        differs: whether model and person differ, shape (units,).
        looked_at: how many slices the chance of error is shared by.
    """
    remaining, slices = np.ones(len(differs), dtype=bool), list[Suspect]()
    level = ALPHA / max(looked_at, 1)
    label_indices = {index for index, dimension in enumerate(cuts) if _of_labels(dimension)}
    for indices in (set(range(len(cuts))) - label_indices, label_indices):
        while len(slices) < MOST:
            candidates = [
                candidate
                for index in sorted(indices)
                for candidate in _suspects(cuts, index, differs, remaining, level)
            ]
            if not candidates:
                break
            strongest = max(
                candidates,
                key=lambda candidate: (candidate.at_least, -candidate.cut, -candidate.code),
            )
            first = _simplest(strongest, candidates, cuts, differs, level)
            slices.append(replace(first, also=tuple(_namesakes(first, cuts))))
            remaining = remaining & ~first.units
    return slices


def _of_labels(cut: Dimension) -> bool:
    return any(kind == LABEL for name in cut.names for kind, _ in name)


def _simplest(
    strongest: Suspect,
    suspects: list[Suspect],
    cuts: tuple[Dimension, ...],
    differs: Bools,
    level: float,
) -> Suspect:
    """Return a slice by one value instead of by two, where the rest of the one differs too.

    Else luck would make the worse half of a bad scanner's letters a finding of its own.
    """
    names = cuts[strongest.cut].names[strongest.code]
    for candidate in suspects:
        candidate_names = cuts[candidate.cut].names[candidate.code]
        if len(candidate_names) < len(names) and set(candidate_names) < set(names):
            rest = _without(cuts[candidate.cut], candidate, strongest, differs)
            if rest.units >= SMALLEST and tail(rest) <= level:
                return candidate
    return strongest


def _without(cut: Dimension, one: Suspect, other: Suspect, differs: Bools) -> Table:
    """Return the counts of one slice when the units of the other are taken out."""
    remaining = one.left & ~other.units
    n, differ, all_n, all_differ = _counts(cut, differs, remaining)
    return table(n[one.code], differ[one.code], all_n, all_differ)


def _suspects(
    cuts: tuple[Dimension, ...], place: int, differs: Bools, left: Bools, level: float
) -> Iterator[Suspect]:
    """Yield the slices of a cut that luck gives with a chance of at most `level`."""
    counts = _counts(cuts[place], differs, left)
    n, differ, all_n, all_differ = counts
    is_likely = _usable(counts) & (z_scores(*counts) > WORTH_A_LOOK)
    for code in np.flatnonzero(is_likely):
        slice_table = table(n[code], differ[code], all_n, all_differ)
        if bound(slice_table) <= level or tail(slice_table) <= level:
            units = left & (cuts[place].codes == code)
            yield Suspect(place, int(code), slice_table, _at_least(slice_table, level), left, units)


def _counts(cut: Dimension, differs: Bools, left: Bools) -> tuple[Codes, Codes, Codes, Codes]:
    """Return units and divergences by slice and stratum, and by stratum alone."""
    strata = int(cut.strata.max(initial=0)) + 1
    with_value = left & (cut.codes != ABSENT)
    index = cut.codes * strata + cut.strata

    def by_slice(units: Bools) -> Codes:
        counts = np.bincount(index[units], minlength=len(cut.names) * strata)
        return counts.reshape(len(cut.names), strata)

    def by_stratum(units: Bools) -> Codes:
        return np.bincount(cut.strata[units], minlength=strata)

    differing = left & differs
    return (
        by_slice(with_value),
        by_slice(with_value & differs),
        by_stratum(left),
        by_stratum(differing),
    )


def _usable(counts: tuple[Codes, Codes, Codes, Codes]) -> Bools:
    """Say of each slice whether it and the rest of its strata have enough units."""
    n, _, all_n, _ = counts
    shared = (n > 0) & (all_n > n)
    slice_sizes, rest_sizes = (
        np.where(shared, n, 0).sum(axis=1),
        np.where(shared, all_n - n, 0).sum(axis=1),
    )
    return np.asarray((slice_sizes >= SMALLEST) & (rest_sizes >= SMALLEST))


def _namesakes(found: Suspect, cuts: tuple[Dimension, ...]) -> Iterator[Name]:
    """Yield other single values that nearly the same units have: records can't tell them apart."""
    candidate_names = cuts[found.cut].names[found.code]
    for dimension in cuts:
        sizes = _sizes(dimension, found.left)
        shared = _sizes(dimension, found.units)
        union_sizes = sizes + int(found.units.sum()) - shared
        for code in np.flatnonzero(shared >= NEARLY * union_sizes):
            if len(dimension.names[code]) == 1 and not set(dimension.names[code]) <= set(
                candidate_names
            ):
                yield dimension.names[code]


def _sizes(cut: Dimension, units: Bools) -> Codes:
    return np.bincount(cut.codes[units & (cut.codes != ABSENT)], minlength=len(cut.names))


def _at_least(counts: Table, level: float) -> float:
    """Return by how much the share of a slice is above the rest's at least."""
    low, _ = clopper_pearson(counts.seen, counts.units, 1 - 2 * level)
    return low - counts.elsewhere


def _search(
    version: str, lever: str, frame: pl.DataFrame, cuts: tuple[Dimension, ...], looked_at: int
) -> SliceSearch:
    differs = frame["differs"].to_numpy()
    candidates = named(cuts, differs, looked_at)
    return SliceSearch(
        version=version,
        lever=lever,
        n=frame.height,
        differ=int(differs.sum()),
        looked_at=looked_at,
        alpha=ALPHA,
        smallest=SMALLEST,
        method=METHOD,
        said=_chance_words(looked_at),
        found=tuple(
            _found(candidate, cuts[candidate.cut].names[candidate.code], frame)
            for candidate in candidates
        ),
    )


def _found(suspect: Suspect, names: Name, frame: pl.DataFrame) -> FoundSlice:
    counts, units = suspect.counts, frame.filter(suspect.units)
    low, high = clopper_pearson(counts.seen, counts.units)
    witnessed = units.filter("differs").drop_nulls("model_right")["model_right"]
    witness_counts = (
        None if witnessed.is_empty() else (int(witnessed.sum()), int((~witnessed).sum()))
    )
    cause, name = _follows(witness_counts), f"{name_words(names)}{_place(names, units)}"
    return FoundSlice(
        names=names,
        name=name,
        words=_words(name, counts, witness_counts, cause),
        n=counts.units,
        differ=counts.seen,
        share=counts.seen / counts.units,
        low=low,
        high=high,
        method=EXACT,
        elsewhere=counts.elsewhere,
        at_least=suspect.at_least,
        p=tail(counts),
        also=tuple(name_words(name) for name in suspect.also),
        model_right=None if witness_counts is None else witness_counts[0],
        people_right=None if witness_counts is None else witness_counts[1],
        follows=cause,
    )


def _follows(right: tuple[int, int] | None) -> str:
    """Say whose the divergences are, where witnesses make it clear at 95 %."""
    if right is None:
        return ""
    low, high = clopper_pearson(right[0], sum(right))
    return "person" if low > 1 / 2 else "cases" if high < 1 / 2 else ""


def _chance_words(looked_at: int) -> str:
    level_text = f"each is held against {per_cent(ALPHA / max(looked_at, 1), 3)}"
    return (
        f"{number(looked_at)} slices were looked at, {level_text}: the chance that any is named"
        f" when none differs is at most {per_cent(ALPHA, 0)} in one report, and anew in each. It is"
        " counted as if units did not depend on each other."
    )


def name_words(names: Name) -> str:
    """Say a slice.

    >>> name_words((("scanner", "worn"),)), name_words((("site", "oslo"), ("window", "night")))
    ('scanner worn', 'oslo · night')
    """
    values = dict(names)
    if values.keys() == {"site", "window"}:
        return cell_name(values["site"], values["window"])
    return ", ".join(PHRASES.get(kind, kind + " {}").format(value) for kind, value in names)


def luck_words(p: float) -> str:
    """Say a chance.

    >>> luck_words(0.0002), luck_words(1e-30)
    ('1 in 5,000', 'under 1 in 1,000,000')
    """
    return (
        f"1 in {number(round(1 / p))}" if p > SELDOM else f"under 1 in {number(round(1 / SELDOM))}"
    )


def _words(name: str, counts: Table, right: tuple[int, int] | None, follows: str) -> str:
    share = f"{number(counts.seen)} of {number(counts.units)} differ"
    share += f" ({per_cent(counts.seen / counts.units)})"
    text = f"{name}: {share} against {per_cent(counts.elsewhere)} elsewhere"
    if right is None or not follows:
        return text
    side = f"the model was right in {number(right[0])} of {number(sum(right))} that can be told"
    return f"{text}; {side}: {FOLLOWS[follows]}"


def _place(names: Name, units: pl.DataFrame) -> str:
    """Say where all units of a slice are, if they are in one place and that is news."""
    if {kind for kind, _ in names} & {"site", "window"}:
        return ""
    sites, windows = units["site"].unique(), units["window"].unique()
    if len(sites) > 1 or sites[0] is None:
        return ""
    is_one_window = len(windows) == 1 and windows[0] is not None
    return f" at {cell_name(str(sites[0]), str(windows[0])) if is_one_window else sites[0]}"
