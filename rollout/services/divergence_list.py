"""Where a version and people differ, and what it cost: the live list, some of it at a time.

The rows are those of `divergences.csv`, of cases that have closed, so nothing is among them that
somebody may still judge without the model's answer in sight. What a person is shown is noted before
it leaves: the cases of the rows, and up to when the figures beside them tell of all the others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256

import polars as pl

from rollout.core.cleaning import Choice, Place, holding
from rollout.core.errors import StaleRevision
from rollout.core.measures import WHOLE
from rollout.core.policy import Policy
from rollout.core.reviewing import PREDICTION, VERDICTS
from rollout.core.rights import Act, Caller, require
from rollout.core.scope import acting
from rollout.reports.confusion import Matrix, action_matrix, matrix_of
from rollout.reports.divergences import COLUMNS, Divergence, csv_of, divergence_frame
from rollout.reports.inputs import Inputs
from rollout.reports.pairs import Pairs, about_of, pair_up
from rollout.reports.pictures import picture_of
from rollout.services.cleaning import BACK
from rollout.services.divergence_offers import Offered, offered
from rollout.services.showing import hidden_from, record_shown
from rollout.services.standing import Standing, standing
from rollout.services.training import Wanted, settled
from rollout.store.arrivals import occurred_before
from rollout.store.caller_keys import CallerKeys
from rollout.store.newest import Newest
from rollout.store.session import Database, Transaction
from rollout.store.shown import Shown
from rollout.tally.frames import ATTRIBUTE

PAGE = "divergences"
AT_ONCE = 3_000  # cases that are noted in one transaction
MANY = 10_000  # cases that are looked at unless more are asked for: about a second
DAY = timedelta(days=1)


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
        since, until: of cases that occurred from one up to the other; by default the last 30 days,
            or as many of them as the newest 10,000 cases fill.
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


@dataclass(frozen=True, slots=True)
class Listed:
    """A divergence with its picture, and what was chosen about it for training."""

    divergence: Divergence
    choice: Choice | None

    @property
    def name(self) -> str:
        """Return what tells it apart from all others of the list, of one length always."""
        one = self.divergence
        return sha256(f"{one.version}\x1f{one.lever}\x1f{one.case_key}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Worst:
    """The dearest kind of divergence: how many, and what they cost together."""

    human: str
    model: str
    count: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergenceList:
    """A page of divergences with the figures that stand above it.

    Attributes:
        policy: in force at the end of the span.
        version, lever: whose answers on what; version "" where none was ever seen.
        since, until: of the cases, `until` outside.
        compared: cases with an answer of the version and one verdict of people; where, and with
            which attributes, as asked. So are the matrices.
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
    compared: int
    count: int
    in_action: int
    cost: float
    worst: Worst | None
    labels: Matrix | None
    actions: Matrix | None
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
        stood = standing(transaction, name)
        found = _found(transaction, stood, caller, asked, at)
        rows = [_listed(row, found.choices) for row in found.differ.iter_rows(named=True)]
        begin = next((n for n, row in enumerate(rows, start=1) if row.name == after), 0)
        some = _pictured(transaction, stood, rows[begin : begin + limit])
    _note(database, stood, caller, [row.divergence.case_key for row in some], at)
    more = len(rows) > begin + limit
    return _told(found, some, begin + 1, some[-1].name if more else None)


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
        stood = standing(transaction, name)
        found = _found(transaction, stood, caller, asked, at)
    keys = found.differ["case_key"].unique().sort().to_list()
    _note(database, stood, caller, keys, at)
    return csv_of(found.differ)


# What is on the list


@dataclass(frozen=True, slots=True)
class _Found:
    """The pairs of one version on one lever, those that differ, and what was chosen about them.

    `asked` names its version and lever; `pairs` fit where and with which attributes, `every` is of
    the whole span.
    """

    asked: Asked
    policy: Policy
    every: pl.DataFrame
    pairs: pl.DataFrame
    differ: pl.DataFrame
    choices: Mapping[Place, Choice]


def _found(
    transaction: Transaction, stood: Standing, caller: Caller, asked: Asked, at: datetime
) -> _Found:
    wanted = Wanted(since=asked.since, until=asked.until)
    inputs, _ = settled(transaction, stood, wanted, at)
    lever = asked.lever if asked.lever in inputs.policy.lever else inputs.policy.levers[0].id
    version = asked.version or acting_most(stood, at)
    whole = replace(asked, version=version, lever=lever)
    choices = holding(inputs.cleanings)
    every = _own(inputs, caller, stood.rollout.name, version, lever)
    pairs = every.filter(*_where(whole, every.columns))
    differ = divergence_frame(Pairs(pairs, {}), inputs.policy).filter(*_which(whole))
    if asked.chosen is not None:
        chosen = [key for key, of in choices if of == lever]
        held = pl.col("case_key").is_in(chosen)
        differ = differ.filter(held if asked.chosen else ~held)
    return _Found(whole, inputs.policy, every, pairs, differ, choices)


def _own(inputs: Inputs, caller: Caller, name: str, version: str, lever: str) -> pl.DataFrame:
    """Return the pairs of a version and lever at the sites that the caller may read."""
    pairs = pair_up(inputs.records, inputs.cases, inputs.policy).of(version, lever)
    mine = [site for site in pairs["site"].unique() if caller.may(Act.READ, name, site or "")]
    return pairs.filter(pl.col("site").is_in(mine), pl.col("lever") != WHOLE)


def _where(asked: Asked, columns: Collection[str]) -> list[pl.Expr]:
    places = (("site", asked.site), ("window", asked.window))
    named = [(ATTRIBUTE + name, value) for name, value in asked.slices.items()]
    own = [pl.col(column) == value for column, value in places if value is not None]
    told = [
        pl.col(column) == value if column in columns else pl.lit(value=False)
        for column, value in named
    ]
    return [*own, *told]


def _which(asked: Asked) -> list[pl.Expr]:
    said = (("human", asked.human), ("model", asked.model))
    fits = [pl.col(column) == value for column, value in said if value is not None]
    return fits if asked.cost is None else [*fits, pl.col("cost") >= asked.cost]


def acting_most(stood: Standing, at: datetime) -> str:
    """Return the version that acts in most cells, else the one seen last; "" for none at all."""
    here = (acting(stood.scope, stood.policy, cell, at) for cell in stood.policy.cells)
    held = [found[0] for found in here if found is not None]
    if held:
        return max(dict.fromkeys(held), key=held.count)
    return next(reversed([v for v, one in stood.scope.versions.items() if not one.retired]), "")


def _listed(row: Mapping[str, object], choices: Mapping[Place, Choice]) -> Listed:
    values = {name: row[name] for name in COLUMNS if not name.startswith("occurred")}
    times = {"at": row["occurred_at"], "local": row["occurred_local"]}
    one = Divergence(**values, **times, about=about_of(row))  # type: ignore[arg-type]
    return Listed(one, choices.get((one.case_key, one.lever)))


def _pictured(
    transaction: Transaction, stood: Standing, rows: Sequence[Listed]
) -> tuple[Listed, ...]:
    keys = CallerKeys(transaction, stood.rollout).find({r.divergence.case_key for r in rows})
    cases = Newest(transaction, stood.rollout).cases(keys.values())
    media = {case.key: [case.media[name] for name in sorted(case.media)] for case in cases.values()}
    return tuple(
        replace(row, divergence=replace(row.divergence, picture=_picture(row, media)))
        for row in rows
    )


def _picture(row: Listed, media: Mapping[str, Sequence[str]]) -> str | None:
    return picture_of(media.get(row.divergence.case_key, ()), embeds=True)


# Who was shown it


def _spanned(database: Database, name: str, asked: Asked, at: datetime) -> Asked:
    """Return what is asked for with both ends of its span."""
    until = at if asked.until is None else min(asked.until, at)
    if asked.since is not None:
        return replace(asked, until=until)
    with database.reading() as transaction:
        rollout = standing(transaction, name).rollout
        reach = occurred_before(transaction, rollout, MANY) if asked.until is None else None
    since = until - BACK if reach is None else max(until - BACK, min(reach, until - DAY))
    return replace(asked, since=since, until=until)


def _tell(database: Database, caller: Caller, name: str, asked: Asked) -> None:
    """Note up to when figures will tell: of few cases they say of each what was answered.

    Before they are read: a known case that is put before somebody meanwhile is not put before them.
    """
    if caller.machine or asked.until is None:
        return
    with database.writing() as transaction:
        stood = standing(transaction, name)
        Shown(transaction, stood.rollout).tell(caller.name, asked.until, page=PAGE)


def _note(
    database: Database, stood: Standing, caller: Caller, keys: Sequence[str], at: datetime
) -> None:
    """Note the cases of rows that are about to be shown."""
    for start in range(0, 0 if caller.machine else len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        with database.writing() as transaction:
            for what in (PREDICTION, VERDICTS):
                record_shown(transaction, stood, caller, some, what=what, page=PAGE, at=at)
            if hidden_from(transaction, stood, caller, some, at):  # they took one meanwhile
                raise StaleRevision("you have just been given one of these cases; ask again")


# What is said of it


def _told(
    found: _Found, rows: tuple[Listed, ...], first: int, further: str | None
) -> DivergenceList:
    asked, lever = found.asked, found.policy.lever[found.asked.lever or ""]
    labelled = lever.number is None and not found.pairs.is_empty()
    assert asked.since is not None  # noqa: S101 - `_spanned` fills both in
    assert asked.until is not None  # noqa: S101 - as above
    return DivergenceList(
        policy=found.policy,
        version=asked.version or "",
        lever=lever.id,
        since=asked.since,
        until=asked.until,
        compared=found.pairs.height,
        count=found.differ.height,
        in_action=found.differ.filter(pl.col("human_action") != pl.col("model_action")).height,
        cost=float(found.differ["cost"].sum()),
        worst=worst_of(found.differ),
        labels=matrix_of(found.pairs, "human", "model", lever.labels) if labelled else None,
        actions=action_matrix(found.pairs, lever) if labelled else None,
        offered=offered(found.every, found.policy, lever),
        rows=rows,
        first=first,
        next=further,
    )


def worst_of(differ: pl.DataFrame) -> Worst | None:
    """Return the pair of answers that cost most together; None where none costs anything."""
    kinds = differ.group_by("human", "model").agg(n=pl.len(), cost=pl.col("cost").sum())
    dear = kinds.filter(pl.col("cost") > 0).sort(
        "cost", "human", "model", descending=[True, False, False]
    )
    return None if dear.is_empty() else Worst(*dear.row(0))
