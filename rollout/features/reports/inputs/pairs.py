"""Pairs of human label and model answer for record-level figures, and counts of such pairs.

Pairs cover every case with exactly one distinct label in its unassisted decisions (blind, or of
unknown exposure), or with numbers within the tolerance of each other; also cases without a usable
time and cases that are no evidence. Pairs of assisted decisions are apart.

Pairs are counted by version, lever, cell, human answer and model answer. Confusion matrices, label
figures, agreement of cells and kappas are sums over these counts, for the pairs of a report, of a
file with ten million pairs, or of the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.picks import (
    NUMBER_PATTERN,
    compute_number_cost,
    is_in_range,
    is_within_tolerance,
    parse_number,
)
from rollout.engine.evidence.reviewer_checks import are_numbers_equal
from rollout.engine.evidence.units import UNLISTED
from rollout.engine.records.reviews import MAX_LISTED
from rollout.features.reports.inputs.divergence_columns import COUNT_COLUMN, KEY_COLUMNS
from rollout.kernel.arrays import nw
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import (
    AGREE,
    FAILED,
    OUTSIDE,
    PAIR_SIGN,
    SEPARATOR,
    WHOLE_UNIT,
    Lever,
    Number,
    do_sets_agree,
    is_label_set,
)

MIN_PROBABILITY = 1e-6  # lower limit: records have at most six digits
UNASSISTED_EXPOSURES = ("blind", "unknown")
"""Exposures of the decisions in record-level figures."""

OTHER_ACTION = "(no action)"  # action of a label that the lever doesn't list

NO_TEXT = pl.lit(None, pl.String)


@dataclass(frozen=True, slots=True)
class LeverFigures:
    """Figures of one version's answers on one lever."""

    version: str
    lever: str


CASE_COLUMNS = ("site", "window", "unit", "occurred_us", "hour_written", "occurred_text")


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a history.

    Attributes:
        frame: one row per case, version and lever, and with several levers one for all of them
            (lever `*`). Columns: case_key, version, lever, human, model, agrees, human_action,
            model_action, same_action, cost, confidence, outcome, the cases' facts and attributes.
            For lever `*` labels and actions are null.
        predicted: number of predictions by version.
    """

    frame: pl.DataFrame
    predicted: dict[str, int]

    def select(self, version: str, lever: str) -> pl.DataFrame:
        """Return the rows of one version and lever."""
        return select_pairs(self.frame, version, lever)


def select_pairs(pairs: pl.DataFrame, version: str, lever: str) -> pl.DataFrame:
    """Return the rows of one version and lever."""
    return pairs.filter((pl.col("version") == version) & (pl.col("lever") == lever))


def build_pairs(records: RecordFrames, cases: pl.DataFrame, policy: Policy) -> Pairs:
    """Return every pair of a history.

    `cases` are the cases in a cell, with site, window, unit and t.
    """
    facts = build_case_frame(records, cases)
    parts = [_build_lever_pairs(records, lever) for lever in policy.levers]
    if len(parts) > 1:
        combined = combine_levers(
            parts,
            human_action=NO_TEXT,
            model_action=NO_TEXT,
            same_action=pl.col("same_action").all(),
            cost=pl.col("cost").sum(),
            confidence=pl.col("confidence").first(),
            outcome=NO_TEXT,
        )
        parts.append(combined)
    frame = pl.concat(parts).join(facts, on="case_key", how="left")
    prediction_counts = records.predictions.group_by("version").len().sort("version")
    return Pairs(frame.sort("version", "lever", "case_key"), dict(prediction_counts.iter_rows()))


def build_case_frame(records: RecordFrames, cases: pl.DataFrame) -> pl.DataFrame:
    """Return facts and attributes of each case; a case without a cell is its own unit.

    Units are numbers in the order of their keys: figures only group and sort by them.
    """
    placed_cases = cases.lazy().select("case_key", "window", "unit", "occurred_us")
    joined = (
        records.cases.lazy()
        .join(placed_cases, on="case_key", how="left")
        .with_columns(unit=pl.coalesce("unit", "episode", "case_key").rank("dense"))
    )
    names = [name for name in records.cases.columns if name.startswith(ATTRIBUTE_PREFIX)]
    return joined.select("case_key", *CASE_COLUMNS, *names).collect()


def list_attributes(row: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return names and values of a case's attributes, without embedded pictures.

    >>> list_attributes({"case_key": "c1", "attribute:lens": "snow", "attribute:mode": None})
    (('lens', 'snow'),)
    """
    return tuple(
        (name.removeprefix(ATTRIBUTE_PREFIX), str(value))
        for name, value in row.items()
        if name.startswith(ATTRIBUTE_PREFIX)
        and value is not None
        and not str(value).startswith("data:")
    )


def find_single_answers(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    """Return the cases with one unassisted answer: case_key, human.

    Labels of several reviewers must be equal. Numbers must lie within the tolerance of each other;
    the lower median counts.
    """
    column = VALUE_PREFIX + lever.id
    decisions = records.decisions.select("case_key", "exposure", column).filter(
        pl.col("exposure").is_in(UNASSISTED_EXPOSURES) & pl.col(column).is_not_null()
    )
    if lever.number is not None:
        return _find_median_numbers(decisions, column, lever.number)
    return (
        decisions.group_by("case_key")
        .agg(human=pl.col(column).first(), different=pl.col(column).n_unique())
        .filter(pl.col("different") == 1)
        .drop("different")
    )


def _find_median_numbers(decisions: pl.DataFrame, column: str, number: Number) -> pl.DataFrame:
    """Return the lower median of each case whose numbers are within the tolerance."""
    numbers = decisions.select(
        "case_key", human=column, value=pl.col(column).cast(pl.Float64, strict=False)
    ).drop_nulls()
    is_single = pl.len().over("case_key") == 1
    singles = numbers.filter(is_single).select("case_key", "human")
    ordered = numbers.filter(~is_single).sort("case_key", "value", "human")
    several = ordered.group_by("case_key", maintain_order=True).agg(
        pl.col("human").get((pl.len() - 1) // 2), low=pl.col("value").first(),
        high=pl.col("value").last(),
    )  # fmt: skip
    close = are_numbers_equal(number, pl.col("low"), pl.col("high"))
    return pl.concat([singles, several.filter(close).select("case_key", "human")])


def _build_lever_pairs(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    column = VALUE_PREFIX + lever.id
    joined = (
        records.predictions.select(
            "case_key", "version", model=pl.col(column).fill_null(FAILED), confidence="confidence"
        )
        .join(find_single_answers(records, lever), on="case_key")
        .join(records.outcomes.select("case_key", outcome=column), on="case_key", how="left")
        .with_columns(lever=pl.lit(lever.id))
    )
    return joined.join(compare_pairs(lever, joined), on=["human", "model"], how="left").select(
        "case_key", "version", "lever", "human", "model", "agrees", "human_action",
        "model_action", "same_action", "cost", "confidence", "outcome",
    )  # fmt: skip


def compare_pairs(lever: Lever, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return agreement, actions and cost of each distinct (human, model)."""
    distinct = pairs.select("human", "model").unique()
    if lever.number is not None:
        return _compare_number_pairs(lever, lever.number, distinct)
    rows = [
        (human, model, *compare_answers(lever, human, model))
        for human, model in distinct.sort("human", "model").rows()
    ]
    schema = {
        "human": pl.String,
        "model": pl.String,
        "agrees": pl.Boolean,
        "human_action": pl.String,
        "model_action": pl.String,
        "same_action": pl.Boolean,
        "cost": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def join_comparison(
    lever: Lever,
    frame: pl.DataFrame,
    human: str = "human",
    model: str = "model",
    **columns: str | pl.Expr,
) -> pl.DataFrame:
    """Return a frame with columns of `compare_pairs` on two of its own; null where one of them is.

    Args:
        human, model: the columns that are compared.
        columns: what is added, by name, from the columns of `compare_pairs`.
    """
    pairs = frame.select(human=human, model=model).drop_nulls()
    compared = compare_pairs(lever, pairs).select(
        pl.col("human").alias(human), pl.col("model").alias(model), **columns
    )
    return frame.join(compared, on=[human, model], how="left", maintain_order="left")


def _compare_number_pairs(lever: Lever, number: Number, distinct: pl.DataFrame) -> pl.DataFrame:
    """Return `compare_answers` of numbers, for all rows at once: a price has many values."""
    # parsed into columns first: the rules below name both sides many times, and each time
    # would parse them anew
    parsed = nw.from_native(distinct).with_columns(
        human_number=parse_number(nw.col("human")), model_number=parse_number(nw.col("model"))
    )
    human, model = nw.col("human_number"), nw.col("model_number")
    is_valid = (is_in_range(number, model) & is_in_range(number, human)).fill_null(value=False)
    agrees = is_valid & is_within_tolerance(number, model, human).fill_null(value=False)
    cost = compute_number_cost(lever, model, human)
    return (
        parsed.with_columns(
            agrees=agrees,
            human_action=nw.col("human"),
            model_action=nw.col("model"),
            same_action=agrees,
            cost=nw.when(is_valid).then(cost).otherwise(nw.lit(float(lever.largest_cost))),
        )
        .drop("human_number", "model_number")
        .to_native()
    )


def compare_answers(lever: Lever, human: str, model: str) -> tuple[bool, str, str, bool, float]:
    """Return agreement, human action, model action, whether they are the same, and cost.

    A failed prediction, an unlisted label and a number out of range have the largest cost, as in
    the engine. A number or a set is its own action, and where it agrees it is the same.
    """
    if lever.number is not None:
        return _compare_numbers(lever, lever.number, human, model)
    model_action, human_action = lever.find_action(model), lever.find_action(human)
    cost = (
        lever.largest_cost
        if model_action is None or human_action is None
        else lever.compute_cost(model_action, human_action)
    )
    agrees = human == model
    if lever.many and model_action is not None and human_action is not None:
        agrees = do_sets_agree(human, model, lever.overlap)
    return (
        agrees,
        human_action or OTHER_ACTION,
        model_action or OTHER_ACTION,
        agrees or (model_action is not None and model_action == human_action),
        0.0 if agrees else cost,
    )


def _compare_numbers(
    lever: Lever, number: Number, human: str, model: str
) -> tuple[bool, str, str, bool, float]:
    is_valid = model != FAILED and all(
        number.low <= float(answer) <= number.high for answer in (human, model)
    )
    if not is_valid:
        return False, human, model, False, lever.largest_cost
    difference = abs(float(model) - float(human))
    agrees = difference <= number.tolerance.compute_distance(float(human))
    return agrees, human, model, agrees, lever.compute_number_cost(float(model), float(human))


def combine_levers(parts: list[pl.DataFrame], **aggregates: pl.Expr) -> pl.DataFrame:
    """Return the rows for all levers together, of cases with a decision on each."""
    combined = (
        pl.concat(parts)
        .group_by("case_key", "version")
        .agg(
            lever=pl.lit(WHOLE_UNIT),
            human=NO_TEXT,
            model=NO_TEXT,
            agrees=pl.col("agrees").all(),
            levers=pl.len(),
            **aggregates,
        )
    )
    return combined.filter(pl.col("levers") == len(parts)).select(parts[0].columns)


ASSISTED = pl.col("exposure") == "assisted"
ADJUDICATED = (pl.col("exposure") == "revealed") & pl.col("seat").is_null()

COLUMNS = ("case_key", "version", "lever", "human", "model", "agrees", "unit", "site", "window")


def build_assisted_pairs(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> pl.DataFrame:
    """Return assisted decisions with the answers of each version.

    The records don't say which version's answer was displayed. One row per case, version and lever,
    with several levers also one for all of them (`*`). Columns: `COLUMNS`.
    """
    places = facts.select("case_key", "unit", "site", "window")
    parts = [_build_unblinded_pairs(records, lever) for lever in policy.levers]
    if len(parts) > 1:
        parts.append(combine_levers(parts))
    return pl.concat(parts).join(places, on="case_key", how="left").select(COLUMNS)


def find_adjudicated_labels(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    """Return the adjudicated labels, and who gave them: case_key, truth, by."""
    return _find_first_decisions(records, lever, ADJUDICATED).rename({"human": "truth"})


def _find_first_decisions(records: RecordFrames, lever: Lever, condition: pl.Expr) -> pl.DataFrame:
    """Return the first answered decision of each case: case_key, human, by."""
    return (
        records.decisions.filter(condition)
        .drop_nulls(VALUE_PREFIX + lever.id)
        .sort("at", "reviewer", nulls_last=True)
        .unique("case_key", keep="first")
        .select("case_key", human=VALUE_PREFIX + lever.id, by="reviewer")
    )


def _build_unblinded_pairs(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    model = records.predictions.select(
        "case_key", "version", model=pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED)
    )
    joined = _find_first_decisions(records, lever, ASSISTED).join(model, on="case_key")
    return (
        join_comparison(lever, joined, agrees="agrees")
        .with_columns(lever=pl.lit(lever.id))
        .select(COLUMNS[:6])
    )


PAIR_COLUMNS = ("case_key", *KEY_COLUMNS, "confidence")
"""Possible columns of pairs; human and model are required."""
ConfidenceSummary = tuple[int, float | None, float | None]
FIRST_ROWS = 20_000
"""Pairs whose surest divergences bound those of all, for a fiftieth of a million's cost."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Counts and largest losses of any number of pairs.

    Attributes:
        table: columns `KEY_COLUMNS` and n, one unordered row per combination; missing keys and
            blank answers are null.
        losses: divergent pairs with the columns of `PAIR_COLUMNS`, cost and loss, the largest cost
            times loss first. Empty without confidences.
        confidence_count: number of pairs with a confidence.
        min_confidence, max_confidence: None without confidences.
    """

    table: pl.DataFrame
    losses: pl.DataFrame
    confidence_count: int
    min_confidence: float | None
    max_confidence: float | None


def count_combinations(pairs: pl.LazyFrame) -> pl.DataFrame:
    """Return how often each combination of `KEY_COLUMNS` occurs, in column n.

    >>> frame = pl.LazyFrame({"human": ["bear", "bear"], "model": ["bear", "bear"]})
    >>> count_combinations(frame).rows()
    [('bear', 'bear', 2)]
    """
    columns = pairs.collect_schema().names()
    present = [name for name in KEY_COLUMNS if name in columns]
    return pairs.group_by(present).agg(n=pl.len()).collect(engine="streaming")


def count_pairs(
    pairs: pl.LazyFrame,
    lever: Lever | None = None,
    combinations: pl.DataFrame | None = None,
    confidences: ConfidenceSummary | None = None,
    *,
    limit: int = MAX_LISTED,
) -> PairCounts:
    """Return the counts and largest losses of streamed pairs, in constant memory.

    Args:
        pairs: columns of `PAIR_COLUMNS`, at least human and model; confidence in [0, 1], null or
            NaN without one.
        lever: gives the costs; without it each divergence costs 1.
        combinations: the result of `count_combinations`, if it is known.
        confidences: number, smallest and largest, if known; NaN may be in the number.
        limit: number of losses to keep.
    """
    # One query for each part: in a common query Polars would keep every row in memory.
    if combinations is None:
        combinations = count_combinations(pairs)
    absent = [name for name in KEY_COLUMNS if name not in combinations.columns]
    table = combinations.with_columns(
        pl.lit(None, pl.String).alias(name) for name in absent
    ).select(*KEY_COLUMNS, COUNT_COLUMN)
    is_blank = [pl.col(name) == "" for name in ("human", "model")]
    has_blanks = table.select(pl.any_horizontal(is_blank).any()).item()
    if has_blanks:
        table = _replace_blanks(table)
    if "confidence" not in pairs.collect_schema().names():
        return PairCounts(table, pl.DataFrame(), 0, None, None)
    has_both = (pl.col("human") != "") & (pl.col("model") != "")
    answered = pairs.filter(has_both) if has_blanks else pairs
    if lever is None:
        answered = _drop_small_losses(answered, limit)
    if lever is None and confidences is not None and not has_blanks:
        top_losses = _find_losses_without_nan(answered, limit)
        if top_losses is not None:
            return PairCounts(table, top_losses, *confidences)
    confidence = pl.col("confidence").fill_nan(None)
    ((confidence_count, min_confidence, max_confidence),) = (
        pairs.select(known=confidence.count(), least=confidence.min(), most=confidence.max())
        .collect(engine="streaming")
        .rows()
    )
    losses = select_top_losses(_select_divergences(answered, lever), limit)
    top_losses = losses.collect(engine="streaming")
    return PairCounts(table, top_losses, confidence_count, min_confidence, max_confidence)


def _find_losses_without_nan(pairs: pl.LazyFrame, limit: int) -> pl.DataFrame | None:
    """Return the largest losses, None if any pair has the confidence NaN.

    NaN sorts above all numbers, so one pass sees both: pairs are kept if they differ or have one.
    """
    rows = pairs.filter((pl.col("human") != pl.col("model")) | pl.col("confidence").is_nan())
    losses = _sort_losses(rows, max(limit, 1)).collect(engine="streaming")
    return None if losses["confidence"].is_nan().any() else losses.head(limit)


def _drop_small_losses(pairs: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    """Return the pairs at least as sure as the last listed loss of the first ones.

    What is less sure is in no list. Of a Parquet file the other columns are then read for few rows.
    """
    sure = (
        _select_divergences(pairs.head(FIRST_ROWS), None)
        .select("confidence")
        .filter(pl.col("confidence").is_not_nan())
        .top_k(limit, by="confidence")
        .collect(engine="streaming")["confidence"]
    )
    return pairs.filter(pl.col("confidence") >= sure.min()) if 0 < limit == len(sure) else pairs


def _select_divergences(pairs: pl.LazyFrame, lever: Lever | None) -> pl.LazyFrame:
    """Return the divergent pairs, with a lever also their cost."""
    differing = pairs.filter(pl.col("human") != pl.col("model"))
    return differing if lever is None else _add_costs(differing, lever)


def select_top_losses(differing: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    """Return the divergent pairs with the largest cost times loss; each costs 1 without costs."""
    return _sort_losses(differing.filter(pl.col("confidence").is_not_nan()), limit)


def _sort_losses(differing: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    names = differing.collect_schema().names()
    has_costs = "cost" in names
    differing = differing.filter(pl.col("confidence").is_not_null())
    others = [pl.col(name) for name in KEY_COLUMNS if name in names]  # of cases with the same key
    sort_keys = [pl.col("confidence"), pl.col("case_key"), *others]  # a loss grows with confidence
    if has_costs:
        sort_keys = [pl.col("cost") * _build_loss_expression(), *sort_keys]
    descending = [True] * (1 + has_costs) + [False] * (1 + len(others))
    losses = (
        differing.top_k(limit, by=sort_keys, reverse=[not flag for flag in descending])
        .sort(sort_keys, descending=descending)
        .with_columns(loss=_build_loss_expression())
    )
    return losses if has_costs else losses.with_columns(cost=pl.lit(1.0))


def _build_loss_expression() -> pl.Expr:
    """Return −ln of the probability of all other answers, in nats."""
    return -(1 - pl.col("confidence")).clip(MIN_PROBABILITY, 1.0).log()


def _add_costs(pairs: pl.LazyFrame, lever: Lever) -> pl.LazyFrame:
    labels = pl.DataFrame({"human": lever.labels}, schema={"human": pl.String})
    combinations = labels.join(labels.rename({"human": "model"}), how="cross")
    costs = compare_pairs(lever, combinations).select("human", "model", "cost").lazy()
    return pairs.join(costs, on=["human", "model"], how="left").with_columns(
        pl.col("cost").fill_null(lever.largest_cost)
    )


def _replace_blanks(counts: pl.DataFrame) -> pl.DataFrame:
    """Return the counts with blank answers merged into nulls."""
    return (
        counts.with_columns([pl.col(name).replace("", None) for name in ("human", "model")])
        .group_by(KEY_COLUMNS)
        .agg(pl.col(COUNT_COLUMN).sum())
        .select(*KEY_COLUMNS, COUNT_COLUMN)
    )


SIDES = ["human", "model"]


@dataclass(frozen=True, slots=True)
class SetPairCounts:
    """Counts and losses of pairs of sets.

    `table` has the sets of both sides. In the table of `counts` different sets that agree have the
    text of both, as in counted units, so that both columns are equal where a pair agrees.
    """

    counts: PairCounts
    table: pl.DataFrame


def count_set_pairs(pairs: pl.LazyFrame, lever: Lever, *, limit: int = MAX_LISTED) -> SetPairCounts:
    """Return the counts and largest losses of streamed pairs with canonical texts."""
    counts = count_pairs(pairs, limit=0)
    table = counts.table
    compared = compare_pairs(lever, table.drop_nulls(SIDES)).select(*SIDES, "agrees", "cost")
    joined = table.join(compared, on=SIDES, how="left")
    both = pl.concat_str("human", pl.lit(PAIR_SIGN), "model")
    is_pair = pl.col("agrees").fill_null(value=False) & (pl.col("human") != pl.col("model"))
    sides = [pl.when(is_pair).then(both).otherwise(pl.col(side)).alias(side) for side in SIDES]
    counts = replace(counts, table=joined.with_columns(sides).select(table.columns))
    if counts.confidence_count:
        costs = compared.filter(~pl.col("agrees")).select(*SIDES, "cost").lazy()
        losses = select_top_losses(pairs.join(costs, on=SIDES), limit).collect(engine="streaming")
        counts = replace(counts, losses=losses)
    return SetPairCounts(counts, table)


def count_set_labels(answers: pl.DataFrame) -> dict[str, int]:
    """Return how many answers have each label; "" has all of them.

    `answers` has the column n, and `model` with sets, null without an answer.
    """
    parts = answers.select("n", label=pl.col("model").str.split(SEPARATOR)).explode("label")
    counts = parts.drop_nulls("label").group_by("label").agg(pl.col("n").sum()).sort("label")
    return {**dict(counts.iter_rows()), "": int(answers["n"].sum())}


def count_wrong_sets(table: pl.DataFrame, side: str, lever: Lever) -> int:
    """Return how many answers of a side are no sets of the lever's labels."""
    answers = table.drop_nulls(side).group_by(side).agg(pl.col("n").sum())
    return sum(n for text, n in answers.iter_rows() if not is_label_set(text, lever.labels))


MAX_NUMBER_LABELS = 20  # distinct numbers up to which answers are labels, as in `rollout init`
MAX_INTEGER_LABELS = 1000  # the same of whole numbers, which often name classes


@dataclass(frozen=True, slots=True)
class NumberPairCounts:
    """Counts and losses of pairs of numbers, and the pairs themselves.

    `pairs` has version, x and y (the numbers of human and model), agrees, cost, and unit: each
    pair is its own.
    """

    counts: PairCounts
    pairs: pl.DataFrame


def count_number_pairs(
    pairs: pl.LazyFrame, lever: Lever, *, limit: int = MAX_LISTED
) -> NumberPairCounts:
    """Return the counts, losses and numbers of streamed pairs.

    Raises:
        ValueError: an answer is neither a number nor blank.
    """
    _check_numbers(pairs)
    compared = _compare_counted_numbers(pairs, lever)
    sides = compared.with_columns(human=pl.col("human_side"), model=pl.col("model_side"))
    counts = count_pairs(sides.select(pairs.collect_schema().names()), limit=0)
    version = pl.col("version") if "version" in pairs.collect_schema() else pl.lit(None, pl.String)
    numbers = compared.filter(pl.col("x").is_not_null()).select(
        version.alias("version"), "x", "y", "agrees", "cost"
    )
    if counts.confidence_count:
        differing = compared.filter(~pl.col("agrees") & pl.col("y").is_not_null())
        counts = replace(
            counts, losses=select_top_losses(differing, limit).collect(engine="streaming")
        )
    rows = numbers.collect(engine="streaming").with_row_index("unit")
    return NumberPairCounts(counts, rows.with_columns(pl.col("unit").cast(pl.Int64)))


def find_number_answers(table: pl.DataFrame) -> int:
    """Return how many different numbers humans gave, 0 if the answers look like labels.

    Many different numbers make no useful table: those with decimals from 21 on, whole ones from
    1,001 on.
    """
    answers = table["human"].drop_nulls().unique()
    both = pl.concat([answers, table["model"].drop_nulls().unique()])
    if both.n_unique() <= MAX_NUMBER_LABELS or not both.str.contains(NUMBER_PATTERN).all():
        return 0
    has_decimals = both.str.contains(r"[.eE]").any()
    return len(answers) if has_decimals or both.n_unique() > MAX_INTEGER_LABELS else 0


def _check_numbers(pairs: pl.LazyFrame) -> None:
    for side in ("human", "model"):
        answer = pl.col(side)
        is_wrong = (answer.str.strip_chars() != "") & ~answer.str.contains(NUMBER_PATTERN)
        ((n, first),) = (
            pairs.select(n=is_wrong.sum(), first=answer.filter(is_wrong).first())
            .collect(engine="streaming")
            .rows()
        )
        if n:
            raise ValueError(
                f"column {side}: {n:,} answers are no numbers, first {first!r}; the lever compares"
                " numbers with a decimal point: correct the answers, or leave them blank"
            )


def _compare_counted_numbers(pairs: pl.LazyFrame, lever: Lever) -> pl.LazyFrame:
    """Add x (human), y (model), agrees, cost, and the sides that are counted."""
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    frame = nw.from_native(pairs).with_columns(
        x=parse_number(nw.col("human")), y=parse_number(nw.col("model"))
    )
    x, y = nw.col("x"), nw.col("y")
    has_human, has_model = ~x.is_null(), ~y.is_null()
    human_valid = is_in_range(lever.number, x).fill_null(value=False)
    model_valid = is_in_range(lever.number, y).fill_null(value=False)
    is_close = is_within_tolerance(lever.number, y, x).fill_null(value=False)
    agrees = human_valid & model_valid & is_close
    beyond = nw.when(y < x).then(nw.lit("under")).otherwise(nw.lit("over"))
    side = nw.when(agrees | ~has_human).then(nw.lit(AGREE)).otherwise(beyond)
    side = nw.when(model_valid).then(side).otherwise(nw.lit(OUTSIDE))
    human_side = nw.when(human_valid).then(nw.lit(AGREE)).otherwise(nw.lit(UNLISTED))
    cost = compute_number_cost(lever, y, x)
    largest = nw.lit(float(lever.largest_cost))
    return frame.with_columns(
        agrees=agrees,
        cost=nw.when(human_valid & model_valid).then(cost).otherwise(largest),
        human_side=nw.when(has_human).then(human_side),
        model_side=nw.when(has_model).then(side).otherwise(nw.lit(FAILED)),
    ).to_native()
