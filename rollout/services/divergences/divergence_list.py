"""Where a version and people differ, and what it cost: the live list, some of it at a time.

It is of units as they were counted when they closed, so nothing is among them that somebody may
still judge without the model's answer in sight; rows have the form of `divergences.csv`. What a
person is shown is noted before it leaves: the cases of the rows, and up to when the figures beside
them tell of all the others.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from hashlib import sha256

import polars as pl

from rollout.core.errors import StaleRevision
from rollout.core.policy.measures import OUTSIDE
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import Choice, Place, holding
from rollout.core.records.reviews import PREDICTION, VERDICTS
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import acting
from rollout.reports.figures.confusion import ConfusionMatrix
from rollout.reports.inputs.divergences import COLUMNS, Divergence, csv_of, divergence_frame
from rollout.reports.inputs.pairs import Pairs, about_of
from rollout.reports.inputs.pictures import picture_of
from rollout.services.divergences.closed_units import Looked, Pair, Where, look, pairs_of
from rollout.services.divergences.divergence_figures import (
    Worst,
    action_matrix,
    label_matrix,
    worst_of,
)
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.reports.inputs import NothingToReport
from rollout.services.reviews.exposure import hidden_from, record_shown
from rollout.services.training.cleaning import BACK
from rollout.store.counting.closed_units import Said
from rollout.store.counting.count_windows import Spans
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.exposures import Shown
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.history import StoredHistory
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.cleanings import Cleanings
from rollout.tally.frames import ATTRIBUTE, VALUE
from rollout.tally.units import UNLISTED


@dataclass(frozen=True, slots=True)
class Offered:
    """What a list can be narrowed to, in order.

    Sites and windows are all in which the version was ever counted; answers and attributes are
    those of the cases that were looked at.
    """

    sites: tuple[str, ...]
    windows: tuple[str, ...]
    human: tuple[str, ...]
    model: tuple[str, ...]
    costs: tuple[float, ...]
    slices: Mapping[str, tuple[str, ...]]


def offered(looked: Looked, pairs: Sequence[Pair], policy: Policy) -> Offered:
    """Return what a list can be narrowed to.

    Args:
        looked: the units that were looked at, those that agree among them.
        pairs: those that differ, however dear they are and whatever was said.
        policy: for its order, and the attributes that it names as slices.
    """
    lever, cells = looked.where.lever, looked.places.values()
    answer_counts = () if lever.number is not None else looked.counts
    return Offered(
        sites=_ordered((cell.site for cell in cells), policy.site),
        windows=_ordered((cell.window for cell in cells), [window.id for window in policy.windows]),
        human=_ordered(_answers(answer_counts, pairs, 0), lever.labels),
        model=_ordered(_answers(answer_counts, pairs, 1), lever.labels),
        costs=tuple(cost for cost in reversed(lever.cost_levels) if cost > 0),
        slices=_slices(looked, policy.slices),
    )


def _answers(said: Iterable[Said], pairs: Sequence[Pair], side: int) -> Iterable[str]:
    """Return the answers of one side in the words that rows have."""
    pair_answers = {(pair.human, pair.model) for pair in pairs}
    return {answers[side] for answers in {*said, *pair_answers}} - {UNLISTED, OUTSIDE}


def _slices(looked: Looked, names: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    if not names:
        return {}
    texts = {unit.attributes for unit in looked.around}
    values_by_slice: dict[str, set[str]] = {}
    for attributes in map(json.loads, texts):
        for slice_name in attributes.keys() & set(names):
            values_by_slice.setdefault(slice_name, set()).add(attributes[slice_name])
    return {
        slice_name: tuple(sorted(values_by_slice[slice_name]))
        for slice_name in names
        if slice_name in values_by_slice
    }


def _ordered(found: Iterable[str], first: Iterable[str]) -> tuple[str, ...]:
    """Return what is there, in a policy's order, then what it does not name."""
    value_set = set(found)
    return (*(value for value in first if value in value_set), *sorted(value_set - set(first)))


SCHEMA = {
    "case_key": pl.String(),
    "window": pl.String(),
    "human": pl.String(),
    "model": pl.String(),
    "human_action": pl.String(),
    "model_action": pl.String(),
    "cost": pl.Float64(),
    "confidence": pl.Float64(),
}


def divergence_rows(
    transaction: Transaction, stood: Standing, where: Where, pairs: Sequence[Pair]
) -> pl.DataFrame:
    """Return pairs with their cases' sites, times, attributes and outcomes, the dearest first."""
    case_ids, lever = {pair.case_id for pair in pairs}, where.lever.id
    attribute_names = Spans(transaction, stood.rollout).attributes(case_ids)
    store = StoredHistory(transaction, stood.rollout, levers=[lever], attributes=attribute_names)
    records = store.records(case_ids)
    pair_frame = pl.DataFrame([_row(pair) for pair in pairs], schema=SCHEMA)
    facts = records.cases.select(
        "case_key",
        "site",
        "occurred_text",
        *(ATTRIBUTE + name for name in attribute_names),
        t=pl.col("occurred_at").dt.epoch("us"),
    )
    outcomes = records.outcomes.select("case_key", outcome=VALUE + lever)
    frame = pair_frame.join(facts, on="case_key").join(outcomes, on="case_key", how="left")
    version_columns = {"version": pl.lit(where.version), "lever": pl.lit(lever)}
    divergences = frame.with_columns(agrees=pl.lit(value=False), **version_columns)
    return divergence_frame(Pairs(divergences, {}), stood.policy)


def _row(pair: Pair) -> dict[str, object]:
    return {"case_key": pair.key, **asdict(pair)}


PAGE = "divergences"
AT_ONCE = 3_000  # cases that are noted in one transaction
MANY = 5_000  # units that are looked at, the newest ones: a few hundredths of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which divergences; what is left out does not matter.

    Attributes:
        version: whose; by default the one that acts in most cells, else the newest.
        lever: on what; by default the policy's first.
        site, window: where.
        human, model: what people said, what the version said.
        cost: that much at least.
        slices: attributes with the value that they have.
        since, until: of cases that occurred from one up to the other; by default the last 30 days.
        chosen: only those about which something was chosen, only the others, or, by None, all.
    """

    version: str | None = None
    lever: str | None = None
    site: str | None = None
    window: str | None = None
    human: str | None = None
    model: str | None = None
    cost: float | None = None
    slices: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    chosen: bool | None = None


def name_of(version: str, lever: str, key: str) -> str:
    """Return what tells a divergence apart from all others, of one length always."""
    return sha256(f"{version}\x1f{lever}\x1f{key}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Listed:
    """A divergence with its picture, and what was chosen about it for training."""

    divergence: Divergence
    choice: Choice | None

    @property
    def name(self) -> str:
        """Return what tells it apart from all others of the list, of one length always."""
        divergence = self.divergence
        return name_of(divergence.version, divergence.lever, divergence.case_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceList:
    """A page of divergences with the figures that stand above it.

    Attributes:
        policy: in force; costs are by it.
        version, lever: whose answers on what; version "" where none was ever seen.
        since, until: of the cases, `until` outside.
        cut: whether the span was asked to begin earlier, and no more than `MANY` were looked at.
        compared: closed cases with an answer of the version and a verdict that counts for gates;
            where, and with which attributes, as asked. So are the matrices.
        count, in_action, cost: of the divergences as asked: how many, how many of them in what is
            done, and what they cost together.
        worst: the dearest kind among them; None where there is none.
        labels, actions: matrices; None for a lever with numbers, and where nothing was compared.
        offered: what the list can be narrowed to.
        rows: of this page, the dearest first.
        first: the place of the page's first row, from 1.
        next: after which name the next page begins, None at the end.
    """

    policy: Policy
    version: str
    lever: str
    since: datetime
    until: datetime
    cut: bool
    compared: int
    count: int
    in_action: int
    cost: float
    worst: Worst | None
    labels: ConfusionMatrix | None
    actions: ConfusionMatrix | None
    offered: Offered
    rows: tuple[Listed, ...]
    first: int
    next: str | None


def divergence_list(
    database: Database,
    caller: Caller,
    name: str,
    asked: Asked,
    at: datetime,
    *,
    after: str | None = None,
    limit: int = 25,
) -> DivergenceList:
    """Return some divergences at sites that the caller may read, the dearest first.

    Args:
        database: where the rollout is.
        caller: who asks; what is shown to a person is noted.
        name: of the rollout.
        asked: which.
        at: now.
        after: the `next` of the page before; one that is not on the list any more begins anew.
        limit: how many at most.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownRollout: there is none that they may see.
        NothingToReport: the span is empty.
        StaleRevision: a case was put before them just now; ask again.
    """
    require(caller, Act.READ, name)
    asked = _spanned(database, name, asked, at)
    _tell(database, caller, name, asked)
    with database.reading() as transaction:
        state = standing(transaction, name)
        result = _found(transaction, state, caller, asked, at)
        start = _place_after(result, after)
        page = result.pairs[start : start + limit]
        rows = _pictured(transaction, state, _rows(transaction, state, result, page))
    _note(database, state, caller, [pair.key for pair in page], at)
    has_more = len(result.pairs) > start + limit
    return _told(result, rows, start + 1, rows[-1].name if has_more else None)


def divergence_table(
    database: Database, caller: Caller, name: str, asked: Asked, at: datetime
) -> bytes:
    """Return all of a list as CSV, in the form of a report's `divergences.csv`.

    Raises:
        NotAllowed, UnknownRollout, NothingToReport, StaleRevision: as for `divergence_list`.
    """
    require(caller, Act.READ, name)
    asked = _spanned(database, name, asked, at)
    _tell(database, caller, name, asked)
    with database.reading() as transaction:
        state = standing(transaction, name)
        result = _found(transaction, state, caller, asked, at)
        table = divergence_rows(transaction, state, result.looked.where, result.pairs)
    _note(database, state, caller, sorted(pair.key for pair in result.pairs), at)
    return csv_of(table)


# What is on the list


@dataclass(frozen=True, slots=True)
class _Found:
    """What was looked at, and the pairs of it that differ, as asked.

    `asked` names its version and lever.
    """

    asked: Asked
    policy: Policy
    looked: Looked
    pairs: Sequence[Pair]
    offered: Offered


def _found(
    transaction: Transaction, stood: Standing, caller: Caller, asked: Asked, at: datetime
) -> _Found:
    policy = stood.policy
    lever = policy.lever.get(asked.lever or "", policy.levers[0])
    version = asked.version or acting_most(stood, at)
    full_query = replace(asked, version=version, lever=lever.id)
    assert asked.since is not None  # noqa: S101 - `_spanned` fills both in
    assert asked.until is not None  # noqa: S101 - as above
    unit_filter = Where(
        version=version,
        lever=lever,
        site=asked.site,
        window=asked.window,
        readable=partial(caller.may, Act.READ, stood.rollout.name),
        slices=asked.slices,
        since=asked.since,
        until=asked.until,
    )
    compared_units = look(transaction, stood, unit_filter, at, MANY)
    all_pairs = pairs_of(transaction, stood, compared_units)
    pairs = [pair for pair in all_pairs if _is_asked(pair, asked)]
    if asked.chosen is not None:
        current_choices = _held(transaction, stood, pairs)
        pairs = [p for p in pairs if ((p.key, lever.id) in current_choices) == asked.chosen]
    return _Found(
        full_query, policy, compared_units, pairs, offered(compared_units, all_pairs, policy)
    )


def _is_asked(pair: Pair, asked: Asked) -> bool:
    answers_match = asked.human in {None, pair.human} and asked.model in {None, pair.model}
    return answers_match and (asked.cost is None or pair.cost >= asked.cost)


def _held(
    transaction: Transaction, stood: Standing, pairs: Sequence[Pair]
) -> Mapping[Place, Choice]:
    """Return what was chosen about some pairs for training."""
    cleanings = Cleanings(transaction, stood.rollout)
    return holding(cleanings.of({pair.case_id for pair in pairs}))


def _place_after(found: _Found, name: str | None) -> int:
    """Return how many pairs stand up to the one of a name, 0 where it is not on the list."""
    if not name:
        return 0
    unit_filter = found.looked.where
    divergence_ids = (
        name_of(unit_filter.version, unit_filter.lever.id, pair.key) for pair in found.pairs
    )
    return next(
        (position for position, item in enumerate(divergence_ids, start=1) if item == name), 0
    )


def _rows(
    transaction: Transaction, stood: Standing, found: _Found, some: Sequence[Pair]
) -> list[Listed]:
    current_choices = _held(transaction, stood, some)
    table = divergence_rows(transaction, stood, found.looked.where, some)
    return [_listed(row, current_choices) for row in table.iter_rows(named=True)]


def acting_most(stood: Standing, at: datetime) -> str:
    """Return the version that acts in most cells, else the one seen last; "" for none at all."""
    acting_grants = (acting(stood.scope, stood.policy, cell, at) for cell in stood.policy.cells)
    acting_versions = [grant[0] for grant in acting_grants if grant is not None]
    if acting_versions:
        return max(dict.fromkeys(acting_versions), key=acting_versions.count)
    return next(
        reversed(
            [
                version
                for version, version_state in stood.scope.versions.items()
                if not version_state.retired
            ]
        ),
        "",
    )


def _listed(row: Mapping[str, object], choices: Mapping[Place, Choice]) -> Listed:
    values = {
        rollout_name: row[rollout_name]
        for rollout_name in COLUMNS
        if not rollout_name.startswith("occurred")
    }
    times = {"at": row["occurred_at"], "local": row["occurred_local"]}
    divergence = Divergence(**values, **times, about=about_of(row))  # type: ignore[arg-type]
    return Listed(divergence, choices.get((divergence.case_key, divergence.lever)))


def _pictured(
    transaction: Transaction, stood: Standing, rows: Sequence[Listed]
) -> tuple[Listed, ...]:
    keys = CallerKeys(transaction, stood.rollout).find({r.divergence.case_key for r in rows})
    cases = Newest(transaction, stood.rollout).cases(keys.values())
    media = {
        case.key: [case.media[media_name] for media_name in sorted(case.media)]
        for case in cases.values()
    }
    return tuple(
        replace(row, divergence=replace(row.divergence, picture=_picture(row, media)))
        for row in rows
    )


def _picture(row: Listed, media: Mapping[str, Sequence[str]]) -> str | None:
    return picture_of(media.get(row.divergence.case_key, ()), embeds=True)


# Who was shown it


def _spanned(database: Database, name: str, asked: Asked, at: datetime) -> Asked:
    """Return what is asked for with both ends of its span."""
    with database.reading() as transaction:
        rollout = standing(transaction, name).rollout
        started_at = next(Ledger(transaction, rollout).events(until=1)).at
    until = at if asked.until is None else min(asked.until, at)
    since = until - BACK if asked.since is None else asked.since
    if until < started_at:
        error_text = f"{name} began at {started_at.isoformat()}; let the span end after it"
        raise NothingToReport(error_text)
    if since >= until:
        raise NothingToReport(f"{since.isoformat()} is not before {until.isoformat()}")
    return replace(asked, since=since, until=until)


def _tell(database: Database, caller: Caller, name: str, asked: Asked) -> None:
    """Note up to when figures will tell: of few cases they say of each what was answered.

    Before they are read: a known case that is put before somebody meanwhile is not put before them.
    """
    if caller.machine or asked.until is None:
        return
    with database.writing() as transaction:
        state = standing(transaction, name)
        Shown(transaction, state.rollout).tell(caller.name, asked.until, page=PAGE)


def _note(
    database: Database, stood: Standing, caller: Caller, keys: Sequence[str], at: datetime
) -> None:
    """Note the cases of rows that are about to be shown."""
    for start in range(0, 0 if caller.machine else len(keys), AT_ONCE):
        batch = keys[start : start + AT_ONCE]
        with database.writing() as transaction:
            for content in (PREDICTION, VERDICTS):
                record_shown(transaction, stood, caller, batch, what=content, page=PAGE, at=at)
            if hidden_from(transaction, stood, caller, batch, at):  # they took one meanwhile
                raise StaleRevision("you have just been given one of these cases; ask again")


# What is said of it


def _told(
    found: _Found, rows: tuple[Listed, ...], first: int, further: str | None
) -> DivergenceList:
    query, compared_units, pairs = found.asked, found.looked, found.pairs
    lever = compared_units.where.lever
    has_labels = lever.number is None and bool(compared_units.counts)
    return DivergenceList(
        policy=found.policy,
        version=query.version or "",
        lever=lever.id,
        since=compared_units.since or compared_units.where.since,
        until=compared_units.where.until,
        cut=compared_units.since is not None,
        compared=sum(compared_units.counts.values()),
        count=len(pairs),
        in_action=sum(pair.human_action != pair.model_action for pair in pairs),
        cost=sum(pair.cost for pair in pairs),
        worst=worst_of(pairs),
        labels=label_matrix(compared_units) if has_labels else None,
        actions=action_matrix(compared_units) if has_labels else None,
        offered=found.offered,
        rows=rows,
        first=first,
        next=further,
    )
