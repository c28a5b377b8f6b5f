"""The human ceiling: how far people agree with each other, and beside it how far a model does.

A model can't be asked for more than people give each other: at 94 % where people agree in 94 % it
is at the ceiling (statistics.md §9). Taken are verdicts of people who saw nothing of the model, on
cases that several of them judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.reports.figures.ratings import People, model_among, people, people_on_numbers
from rollout.reports.inputs.pairs import compared
from rollout.reports.statistics.chance_agreement import AgreementCoefficient
from rollout.reports.statistics.intervals import Share, clustered_share
from rollout.tally.frames import VALUE, Records

Ints = NDArray[np.int64]

APART = "\x1f"  # between the labels of several levers


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How far people agree with each other, beside how far the model does on the same cases.

    Attributes:
        lever: of which; `*`: all of them together.
        people: people with each other.
        version: of the model.
        model: verdicts of people that the model agrees with, each verdict as heavy.
        model_alpha: alpha of the model and one person, drawn at random on each case.
        with_model: all figures of the model and one person, drawn at random; None for numbers.
        majority: cases on which the model says what most people said; ties are left out.
        majority_outcome: the same of what most people said and the outcome, where it is known.
    """

    lever: str
    people: People
    version: str
    model: Share
    model_alpha: AgreementCoefficient | None
    with_model: People | None
    majority: Share
    majority_outcome: Share


@dataclass(frozen=True)
class Doubly:
    """The verdicts on cases that several people judged, on one lever.

    Attributes:
        lever: of which; None for all of them together.
        verdicts: case_key, unit, label.
        outcomes: case_key, outcome.
    """

    lever: Lever | None
    verdicts: pl.DataFrame
    outcomes: pl.DataFrame

    @property
    def number(self) -> Lever | None:
        """Return the lever where it is one of numbers."""
        return self.lever if self.lever and self.lever.number else None


def ceilings_of(said: pl.DataFrame, records: Records, policy: Policy) -> tuple[Ceiling, ...]:
    """Return the ceiling of every version on every lever, versions in order.

    Args:
        said: one row per unseen verdict and lever: case_key, reviewer, lever, label, unit.
        records: for the model's answers and for outcomes.
        policy: for the levers. Several of labels alone are also taken together.
    """
    parts = list(_doubly(said, records, policy))
    agreements = [_people(part) for part in parts]
    versions = records.predictions["version"].unique().sort().to_list()
    return tuple(
        _ceiling(part, agreement, policy, records, version)
        for version in versions
        for part, agreement in zip(parts, agreements, strict=True)
    )


def _doubly(said: pl.DataFrame, records: Records, policy: Policy) -> Iterator[Doubly]:
    labelled = said.drop_nulls("label")
    for lever in policy.levers:
        labels = labelled.filter(pl.col("lever") == lever.id).select("case_key", "unit", "label")
        outcomes = records.outcomes.select("case_key", outcome=VALUE + lever.id).drop_nulls()
        yield Doubly(lever, _several(labels), outcomes)
    if len(policy.levers) > 1 and not any(lever.number for lever in policy.levers):
        yield Doubly(None, _several(_together(labelled, policy)), _joined(records.outcomes, policy))


def _several(verdicts: pl.DataFrame) -> pl.DataFrame:
    return verdicts.filter(pl.len().over("case_key") > 1).sort("case_key", "label")


def _together(known: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return the answers of each person who answered on all levers, as one text."""
    order = [lever.id for lever in policy.levers]
    lever_index = pl.col("lever").replace_strict(
        order, list(range(len(order))), return_dtype=pl.Int64
    )
    grouped = known.sort(lever_index).group_by("case_key", "unit", "reviewer", maintain_order=True)
    joined = grouped.agg(label=pl.col("label").str.join(APART), levers=pl.len())
    return joined.filter(pl.col("levers") == len(order)).select("case_key", "unit", "label")


def _joined(answers: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    columns = [VALUE + lever.id for lever in policy.levers]
    text = pl.concat_str(columns, separator=APART)
    return answers.select("case_key", outcome=text).drop_nulls()


def _people(part: Doubly) -> People:
    if part.number:
        return _people_on_numbers(part)
    values, units, _ = _counted(part.verdicts)
    return people(values, units)


def _people_on_numbers(part: Doubly) -> People:
    assert part.lever is not None  # noqa: S101 - asked of number levers alone
    numbers = part.verdicts.with_columns(x=pl.col("label").cast(pl.Float64))
    pairs = numbers.with_row_index("one").join(
        numbers.with_row_index("other").select("case_key", "other", model="label"), on="case_key"
    )
    pairs = pairs.filter(pl.col("one") < pl.col("other")).rename({"label": "human"})
    compared_pairs = pairs.join(compared(part.lever, pairs), on=["human", "model"])
    agreeing = compared_pairs.group_by("case_key").agg(agreeing=pl.col("agrees").sum())
    x = pl.col("x") - (numbers["x"].mean() or 0.0)  # gaps stay, and squares cancel nothing
    sums = numbers.group_by("case_key", "unit").agg(m=pl.len(), sum=x.sum(), square=(x**2).sum())
    cases = sums.join(agreeing, on="case_key").sort("case_key")
    return people_on_numbers(
        _ints(cases["m"]),
        cases["sum"].to_numpy(),
        cases["square"].to_numpy(),
        _ints(cases["agreeing"]),
        _codes(cases["unit"]),
    )


def _ceiling(
    part: Doubly, found: People, policy: Policy, records: Records, version: str
) -> Ceiling:
    answers = _answers(part, policy, records, version)
    joined = part.verdicts.join(answers, on="case_key")
    model_agreement = None if part.number else _model_among(joined)
    majority = _majority(part.verdicts)
    return Ceiling(
        lever=part.lever.id if part.lever else policy.whole,
        people=found,
        version=version,
        model=_share(_agreeing(part, joined)),
        model_alpha=model_agreement.alpha if model_agreement else None,
        with_model=model_agreement,
        majority=_share(_agreeing(part, majority.join(answers, on="case_key"))),
        majority_outcome=_share(
            _agreeing(
                part, majority.join(part.outcomes.rename({"outcome": "model"}), on="case_key")
            )
        ),
    )


def _answers(part: Doubly, policy: Policy, records: Records, version: str) -> pl.DataFrame:
    """Return what a version said of each case that it was asked about: case_key, model."""
    predictions = records.predictions.filter(pl.col("version") == version)
    if part.lever:
        answer = pl.col(VALUE + part.lever.id).fill_null(FAILED)
        return predictions.select("case_key", model=answer)
    columns = [pl.col(VALUE + lever.id).fill_null(FAILED) for lever in policy.levers]
    return predictions.select("case_key", model=pl.concat_str(columns, separator=APART))


def _agreeing(part: Doubly, both: pl.DataFrame) -> pl.DataFrame:
    """Return rows of unit and agrees."""
    if part.number is None:
        return both.select("unit", agrees=pl.col("label") == pl.col("model"))
    renamed = both.rename({"label": "human"})
    return renamed.join(compared(part.number, renamed), on=["human", "model"]).select(
        "unit", "agrees"
    )


def _share(verdicts: pl.DataFrame) -> Share:
    units = verdicts.group_by("unit").agg(pl.col("agrees").sum(), size=pl.len()).sort("unit")
    return clustered_share(units["agrees"].to_numpy(), units["size"].to_numpy())


def _majority(verdicts: pl.DataFrame) -> pl.DataFrame:
    """Return what most people said of each case, cases with a tie left out."""
    votes = verdicts.group_by("case_key", "unit", "label").len(name="votes")
    leading = votes.filter(pl.col("votes") == pl.col("votes").max().over("case_key"))
    return leading.filter(pl.len().over("case_key") == 1).sort("case_key")


def _model_among(both: pl.DataFrame) -> People:
    """Return the model's figures with a random one of the people, over the same labels."""
    labels = pl.concat([both["label"], both["model"]]).unique().sort()
    values, units, cases = _counted(both, labels)
    answers = both.unique("case_key", keep="first").sort("case_key")
    codes = _ints(answers.select(_place("model", labels)).to_series())
    assert cases.to_list() == answers["case_key"].to_list()  # noqa: S101 - one order for both
    return model_among(values, codes, units)


def _counted(
    verdicts: pl.DataFrame, names: pl.Series | None = None
) -> tuple[Ints, Ints, pl.Series]:
    """Return how often each label was given to each case, the cases' units, and the cases."""
    labels = verdicts["label"].unique().sort() if names is None else names
    cases = verdicts.select("case_key", "unit").unique().sort("case_key")
    coded = verdicts.select(
        case=pl.col("case_key").rank("dense").cast(pl.Int64) - 1, value=_place("label", labels)
    )
    votes = coded.group_by("case", "value").len()
    values = np.zeros((cases.height, len(labels)), dtype=np.int64)
    values[_ints(votes["case"]), _ints(votes["value"])] = _ints(votes["len"])
    return values, _codes(cases["unit"]), cases["case_key"]


def _place(column: str, names: pl.Series) -> pl.Expr:
    codes = {label: code for code, label in enumerate(names)}
    return pl.col(column).replace_strict(codes, return_dtype=pl.Int64).cast(pl.Int64)


def _codes(column: pl.Series) -> Ints:
    """Return a number for each different text."""
    return _ints(column.rank("dense").cast(pl.Int64) - 1)


def _ints(column: pl.Series) -> Ints:
    """Return whole numbers as an array, also where there are none and their type is not known."""
    return column.to_numpy().astype(np.int64)
