"""Compare one file of pairs while streaming it, without a rollout or service: `rollout.compare`."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from sys import float_info

import polars as pl

from rollout.engine.files.label_set_texts import parse_set
from rollout.engine.files.mapped_rows import DOUBTFUL, find_doubtful, find_placeholders
from rollout.engine.files.pair_files import (
    SIDES,
    clear_pair_placeholders,
    count_file,
    format_polars_error,
    list_pair_labels,
    replace_answers,
    rewrite_set_pairs,
    scan_pairs,
)
from rollout.engine.files.questions import (
    NO_CHOICES,
    DoubtfulLabel,
    EqualSides,
    FileChoices,
    FormPair,
    OpenQuestionsError,
    SameForm,
)
from rollout.engine.files.side_comparison import MIN_COMPARED, MIN_PAIRS, MIN_SHARED, pair_forms
from rollout.features.reports.figures.agreement import (
    NumberAgreement,
    SetAgreement,
    compute_number_agreement,
    compute_set_agreement_of_counts,
    compute_set_labels,
)
from rollout.features.reports.figures.comparison import Comparison, compute_comparisons
from rollout.features.reports.inputs.divergence_columns import COUNT_COLUMN, DivergenceCost
from rollout.features.reports.inputs.pairs import (
    ConfidenceSummary,
    PairCounts,
    count_combinations,
    count_number_pairs,
    count_pairs,
    count_set_pairs,
    find_number_answers,
)
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.fields import read_distance, read_overlap
from rollout.kernel.units import SEPARATOR, Lever, Number

_SAMPLE = 1000
"""Pairs that are compared first, because sides that differ do so early."""
BASIS_TEXT = (
    "Each pair counts as independent. Units, times and exposure are unknown, so these figures are "
    "not evidence."
)


@dataclass(frozen=True, slots=True)
class PairLoss(DivergenceCost):
    """A pair that differs, with confidence and loss.

    `loss` is in nats: −ln of the probability left for the human answer. `cost` is that of following
    the
    model, 1 without a policy.
    """

    confidence: float
    loss: float


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Comparison of the pairs of a file.

    Attributes:
        numbers: with a number lever one per version, in the order of the comparisons.
        sets: the same with a lever of sets of labels.
        answered: the comparisons without cases in which the model has no answer, if there are any.
        missing: the answers that were read as missing, such as `nan`, and how often they occur.
        with_confidence: number of rows with a confidence.
        basis: description of the counted pairs.
        compute_comparisons: one per version.
        top_losses: at most 20, by cost times loss.
    """

    file: str
    rows: int
    with_confidence: int
    basis: str
    comparisons: tuple[Comparison, ...]
    top_losses: tuple[PairLoss, ...]
    numbers: tuple[NumberAgreement, ...] = ()
    sets: tuple[SetAgreement, ...] = ()
    answered: tuple[Comparison, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)


def compare(
    pairs: str | Path,
    *,
    policy: Policy | None = None,
    lever: str = "",
    tolerance: str = "",
    overlap: str = "",
    mapped: Sequence[str] = (),
    choices: FileChoices = NO_CHOICES,
) -> PairComparison:
    """Compare human and model answers of a file.

    Args:
        pairs: file with the columns `human` and `model`: Parquet, CSV or JSON lines.
        policy: gives costs, actions, the order of labels, and how the file is written.
        lever: lever of the answers; optional if the policy has only one.
        tolerance: distance within which numbers agree, as 5% or 2; instead of a policy.
        overlap: share of their labels that sets must have in common to agree; instead of a policy.
        mapped: other names of columns, such as `human=answer`.
        choices: answers to questions about the file.

    Raises:
        OpenQuestionsError: an answer can be a label or a missing answer, answers differ in form
            only, or all pairs are equal.
        ValueError: the file can't be read, a confidence is not valid, or it holds numbers and
            nothing says how near they must be, or sets and nothing says when they agree.
    """
    _check_choices(policy, tolerance, overlap)
    file, mappings = Path(pairs), tuple(mapped)
    pair_lever, reading = _build_number_lever(tolerance) if tolerance else None, FileReading()
    if policy is not None:
        pair_lever = _select_lever(policy, lever)
        reading = policy.file_readings.get("pairs", reading)
    reading = replace(reading, unsure=(*(reading.unsure or ()), *choices.unsure))
    try:
        scanned = scan_pairs(file, mappings, reading)
        if pair_lever is not None and pair_lever.number is not None:
            scanned = clear_pair_placeholders(scanned)
            _check_equal_sides(file, scanned, choices)
            return _compare_numbers(file, scanned, pair_lever)
        counts = count_file(file, mappings, reading)
        combinations = counts.combinations if counts else count_combinations(scanned)
        missing = _find_missing(file, scanned, combinations, pair_lever, choices)
        replacements: dict[str, str | None] = dict.fromkeys(missing)
        if not (overlap or (pair_lever is not None and pair_lever.many)):
            replacements |= _find_forms(file, combinations, missing, pair_lever, choices)
        if replacements:
            scanned, counts = replace_answers(scanned, replacements), None
            combinations = count_combinations(scanned)
        _check_equal_sides(file, scanned, choices, combinations)
        comparison = _compare_answers(
            file, scanned, pair_lever, overlap, combinations, counts.confidences if counts else None
        )
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file}: can't be read: {format_polars_error(error)}") from error
    return replace(comparison, missing=missing)


def _find_missing(
    file: Path,
    pairs: pl.LazyFrame,
    combinations: pl.DataFrame,
    lever: Lever | None,
    choices: FileChoices,
) -> dict[str, int]:
    """Return the answers that stand for a missing one, and how often they occur.

    Raises:
        OpenQuestionsError: both sides have an answer such as `none`, and nothing says what it is.
    """
    sides = [combinations.select(SIDES[side], n="n").drop_nulls() for side in (0, 1)]
    counts = Counter[str]()
    for side in sides:
        for text, n in side.iter_rows():
            counts[text] += n
    if lever is not None:
        listed: Collection[str] = lever.labels
    elif "" in choices.unsure:  # every text is a label
        listed = DOUBTFUL
    else:
        doubtful = [find_doubtful(side.to_series()) for side in sides]
        shared = (doubtful[0] & doubtful[1]) - {*choices.unsure}
        if open_words := _find_unscored(pairs, shared - {*choices.label}):
            raise OpenQuestionsError(
                [DoubtfulLabel(file=file.name, label=word) for word in open_words]
            )
        listed = shared | {*choices.label}
    return {text: counts[text] for text in find_placeholders(counts, listed)}


def _find_forms(
    file: Path,
    combinations: pl.DataFrame,
    missing: Collection[str],
    lever: Lever | None,
    choices: FileChoices,
) -> dict[str, str]:
    """Return the answers to replace by one that differs in form only.

    Raises:
        OpenQuestionsError: there are some, and nothing says that they are the same.
    """
    if choices.same_form is False or (lever is None and find_number_answers(combinations)):
        return {}
    human, model = ({*combinations[side].unique().drop_nulls()} - {"", *missing} for side in SIDES)
    if lever is not None:
        forms = pair_forms(human | model, lever.labels)
    else:
        forms = pair_forms(human, model)
        forms |= pair_forms(model, human - forms.keys())
    if forms and choices.same_form is None:
        pairs = tuple(FormPair("label", text, other) for text, other in forms.items())
        raise OpenQuestionsError([SameForm(file=file.name, pairs=pairs)])
    return forms


def _check_shared_labels(file: Path, table: pl.DataFrame, lever: Lever | None) -> None:
    """Raise ValueError if the two sides have too few labels in common."""
    answered = table.drop_nulls(SIDES)
    if answered[COUNT_COLUMN].sum() < MIN_COMPARED:
        return
    human, model = ({*answered[side].unique()} for side in SIDES)
    shared, smaller = len(human & model), min(len(human), len(model))
    is_listed = lever is not None and {*lever.labels} >= human | model
    if shared < MIN_SHARED * smaller and not is_listed:
        raise ValueError(
            f"{file}: human and model have {shared} of {smaller:,} labels in common: humans answer"
            f" such as {min(human - model)!r}, the model such as {min(model - human)!r}; name the"
            " columns that have the same labels, `--map human=COLUMN`, or write the labels alike"
        )


def _check_equal_sides(
    file: Path,
    pairs: pl.LazyFrame,
    choices: FileChoices,
    combinations: pl.DataFrame | None = None,
) -> None:
    """Raise OpenQuestionsError if 50 pairs or more are all equal, and nobody said that they are."""
    if choices.equal_sides:
        return
    if combinations is None:
        sample = count_combinations(pairs.head(_SAMPLE))
        combinations = sample if _count_equal(sample) is None else count_combinations(pairs)
    equal = _count_equal(combinations)
    if equal is not None and equal >= MIN_PAIRS:
        raise OpenQuestionsError([EqualSides(file=file.name, pairs=equal)])


def _count_equal(combinations: pl.DataFrame) -> int | None:
    """Return the number of pairs with both answers, or None if some differ."""
    pairs = combinations.drop_nulls(SIDES)
    is_equal = pairs.select((pl.col("human") == pl.col("model")).all()).item()
    return int(pairs["n"].sum()) if is_equal else None


def _find_unscored(pairs: pl.LazyFrame, words: Collection[str]) -> list[str]:
    """Return the words that the model somewhere answers without a confidence, sorted."""
    if not words or "confidence" not in pairs.collect_schema().names():
        return sorted(words)
    answer = pl.col("model").str.strip_chars().str.to_lowercase()
    unscored = pairs.filter(answer.is_in(list(words)) & pl.col("confidence").is_null())
    return unscored.select(answer.unique().sort()).collect().to_series().to_list()


def _compare_answers(
    file: Path,
    pairs: pl.LazyFrame,
    lever: Lever | None,
    overlap: str,
    combinations: pl.DataFrame,
    confidences: ConfidenceSummary | None,
) -> PairComparison:
    """Return the comparison of labels, or of sets of them."""
    if overlap:
        return _compare_sets(file, pairs, _build_set_lever(file, pairs, overlap))
    if lever is not None and lever.many:
        return _compare_sets(file, pairs, lever)
    return _compare_labels(file, count_pairs(pairs, lever, combinations, confidences), lever)


def _check_choices(policy: Policy | None, tolerance: str, overlap: str) -> None:
    """Raise ValueError if several options say when answers agree."""
    options = {"--tolerance": tolerance, "--overlap": overlap}
    for option, value in options.items():
        if value and policy is not None:
            raise ValueError(f"{option}: the policy has one; leave out one of the two")
    if all(options.values()):
        raise ValueError("--overlap is for sets and --tolerance for numbers; leave out one of them")


def _compare_labels(file: Path, pair_counts: PairCounts, lever: Lever | None) -> PairComparison:
    if lever is None:
        _refuse_numbers(file, pair_counts)
        _refuse_sets(file, pair_counts)
    comparison = _build_comparison(file, pair_counts, lever)
    _check_shared_labels(file, pair_counts.table, lever)
    return comparison


def _build_comparison(
    file: Path,
    pair_counts: PairCounts,
    lever: Lever | None,
    *,
    has_numbers: bool = False,
    has_sets: bool = False,
) -> PairComparison:
    _check_confidences(file, pair_counts)
    answered: tuple[Comparison, ...] = ()
    if not (has_numbers or has_sets):
        table = pair_counts.table.filter(pl.col("model").is_not_null())
        is_smaller = table.height < pair_counts.table.height
        answered = compute_comparisons(table, lever) if is_smaller else ()
    return PairComparison(
        file=file.name,
        rows=int(pair_counts.table["n"].sum()),
        with_confidence=pair_counts.confidence_count,
        basis=BASIS_TEXT,
        comparisons=compute_comparisons(
            pair_counts.table,
            lever,
            has_labels=not (has_numbers or has_sets),
            has_numbers=has_numbers,
        ),
        answered=answered,
        top_losses=tuple(_build_pair_loss(row) for row in pair_counts.losses.iter_rows(named=True)),
    )


def _compare_numbers(file: Path, pairs: pl.LazyFrame, lever: Lever) -> PairComparison:
    number_counts = count_number_pairs(pairs, lever)
    comparison = _build_comparison(file, number_counts.counts, lever, has_numbers=True)
    versions = [version_comparison.version for version_comparison in comparison.comparisons]
    numbers = tuple(
        compute_number_agreement(
            number_counts.pairs.filter(pl.col("version").eq_missing(pl.lit(version, pl.String))),
            version,
            lever,
        )
        for version in versions
    )
    return replace(comparison, numbers=numbers)


def _compare_sets(file: Path, pairs: pl.LazyFrame, lever: Lever) -> PairComparison:
    """Return the comparison of sets; a lever without an id, as of `--overlap`, has no costs."""
    set_counts = count_set_pairs(rewrite_set_pairs(pairs, lever.labels), lever)
    own_lever = lever if lever.id else None
    comparison = _build_comparison(file, set_counts.counts, own_lever, has_sets=True)
    return replace(
        comparison,
        comparisons=tuple(
            replace(part, labels=compute_set_labels(set_counts.table, part.version, lever))
            for part in comparison.comparisons
        ),
        sets=tuple(
            compute_set_agreement_of_counts(set_counts.table, part.version, lever)
            for part in comparison.comparisons
        ),
    )


def _build_set_lever(file: Path, pairs: pl.LazyFrame, overlap: str) -> Lever:
    """Return a lever of all labels in the file, of which each divergence costs 1."""
    try:
        share = read_overlap(overlap)
    except ValueError as error:
        raise ValueError(f"--overlap {overlap}: {error}") from None
    try:
        labels = list_pair_labels(pairs)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return Lever("", labels, labels, many=True, overlap=share)


def _build_number_lever(tolerance: str) -> Lever:
    """Return a lever of any number, of which each divergence costs 1."""
    try:
        margin = read_distance(tolerance)
    except ValueError:
        raise ValueError(
            f"--tolerance {tolerance}: is no distance; write a number such as 2, or a share of the"
            " human's number such as 5%"
        ) from None
    return Lever("", number=Number("", -float_info.max, float_info.max, margin))


def _refuse_numbers(file: Path, pair_counts: PairCounts) -> None:
    different = find_number_answers(pair_counts.table)
    if different:
        raise ValueError(
            f"{file}: the answers are numbers ({different:,} different ones of humans), not labels;"
            " write how near they must be, `--tolerance 5%` or `--tolerance 2`, or name a policy"
        )


def _refuse_sets(file: Path, pair_counts: PairCounts) -> None:
    """Raise ValueError if an answer holds several labels, as in `rollout init`."""
    table = pair_counts.table
    answers = {*table["human"].drop_nulls().unique(), *table["model"].drop_nulls().unique()}
    sets = [text for text in answers if SEPARATOR in text or parse_set(text) != text]
    if sets:
        example = min(sets, key=lambda text: (SEPARATOR not in text, text))
        raise ValueError(
            f"{file}: answers such as {example!r} hold several labels; write how much of their"
            " labels sets must have in common to agree, `--overlap 100%`, or name a policy"
        )


def _select_lever(policy: Policy, lever_id: str) -> Lever:
    levers = {lever.id: lever for lever in policy.levers}
    if lever_id and lever_id not in levers:
        raise ValueError(f"--lever {lever_id}: the policy's levers: {', '.join(levers)}")
    if len(levers) != 1 and not lever_id:
        raise ValueError(f"--lever: the policy's levers are {', '.join(levers)}; say which")
    return levers[lever_id] if lever_id else next(iter(levers.values()))


def _check_confidences(file: Path, pair_counts: PairCounts) -> None:
    minimum, maximum = pair_counts.min_confidence, pair_counts.max_confidence
    if minimum is not None and maximum is not None and not 0 <= minimum <= maximum <= 1:
        span = f"{_format_bound(minimum)} to {_format_bound(maximum)}"
        raise ValueError(f"{file}: confidences run from {span}; write 0 to 1")


def _format_bound(confidence: float) -> str:
    """Return a confidence in few digits, but none that hide that it is beyond 0 and 1.

    >>> _format_bound(-0.0), _format_bound(1.0000000001), _format_bound(1 / 3)
    ('0', '1.0000000001', '0.333333')
    """
    text = f"{confidence + 0.0:g}"  # adding 0 takes the sign of -0
    return text if (0 <= float(text) <= 1) == (0 <= confidence <= 1) else repr(confidence)


def _build_pair_loss(row: dict[str, object]) -> PairLoss:
    return PairLoss(**{each.name: row.get(each.name) for each in fields(PairLoss)})  # type: ignore[arg-type]
