"""Evidence on what the model's arm brings beyond the people's arm of a randomized experiment.

A unit's sampling value gives it to the model with probability π, else to people. Its outcome Y lies
in [0, 1]. The difference to a mean m that was known before, weighted by 1/π or −1/(1−π), has the
gain as its expectation, whatever else the units have in common. A bet on that difference is an
e-value, valid at every look and for every mixture of π.

Sources: Ville 1939; Waudby-Smith, Ramdas 2024 (betting on bounded means); Horvitz, Thompson 1952
(weights); Shin, Ramdas, Rinaldo 2023 (the guard's sums); Lindon, Malek 2022 (arms not as drawn).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import log
from typing import TYPE_CHECKING

from rollout.kernel.arrays import Bools, Floats, Ints, np, scipy
from rollout.kernel.statistics.detector import compute_log_path
from rollout.kernel.statistics.evidence import check_inside_unit

if TYPE_CHECKING:
    from collections.abc import Iterator


_ARM_CONCENTRATIONS = (4.0, 40.0, 400.0, 4000.0)
_MAX_ARM_LOG_E = log(1000)  # chance alone ever reaches it in one attempt of 1,000


@dataclass(frozen=True, eq=False)
class ArmUnits:
    """Units of both arms, ascending by the slot that counts them.

    Attributes:
        slots: slot of each unit.
        scores: mean outcome of each unit's cases in [0, 1], more is better; 0 if none is known.
        is_model: whether the unit's sampling value gave it to the model.
        shares: probability of that, in (0, 1).
        known_shares: share of the unit's cases whose outcome arrived in time, in [0, 1].
    """

    slots: Ints
    scores: Floats
    is_model: Bools
    shares: Floats
    known_shares: Floats

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.slots)

    def select(self, is_kept: Bools | Ints) -> ArmUnits:
        """Return some of the units, by mask or by position."""
        return ArmUnits(
            self.slots[is_kept],
            self.scores[is_kept],
            self.is_model[is_kept],
            self.shares[is_kept],
            self.known_shares[is_kept],
        )

    @cached_property
    def is_known(self) -> Bools:
        """Return which units have an outcome of at least one case."""
        return self.known_shares > 0

    @cached_property
    def arm_log_path(self) -> Floats:
        """Return ln E against "the sampling values alone made the arms" after each unit.

        A Dirichlet mixture of multinomials, multiplied over the shares: valid at every look.
        """
        path = np.zeros(len(self))
        for share in np.unique(self.shares):
            is_of_share = self.shares == share
            model = np.cumsum(is_of_share & self.is_model)
            people = np.cumsum(is_of_share & ~self.is_model)
            path += _compute_arm_log_path(model, people, float(share))
        return path

    @cached_property
    def are_arms_as_drawn(self) -> Bools:
        """Return after which units both arms were always as large as chance makes them.

        Elsewhere units of one arm were lost, and not by chance: what is left compares nothing.
        """
        return np.asarray(np.maximum.accumulate(self.arm_log_path) < _MAX_ARM_LOG_E)

    @cached_property
    def last_positions(self) -> Ints:
        """Return the position of each slot's last unit."""
        return np.flatnonzero(np.diff(self.slots, append=np.iinfo(np.int64).max))

    @cached_property
    def means(self) -> Floats:
        """Return for each unit the mean outcome of earlier slots, from a first guess of ½."""
        starts = np.searchsorted(self.slots, self.slots, side="left")
        sums = np.concatenate([[0.0], np.cumsum(np.where(self.is_known, self.scores, 0.0))])
        counts = np.concatenate([[0], np.cumsum(self.is_known)])
        return np.asarray((0.5 + sums[starts]) / (1 + counts[starts]), dtype=np.float64)

    @cached_property
    def worst_scores(self) -> Floats:
        """Return the outcomes, unknown ones as bad for the model as they could be."""
        worst = np.where(self.is_model, 0.0, 1.0)
        return self.known_shares * self.scores + (1 - self.known_shares) * worst

    def compute_weighted_differences(self, scores: Floats) -> Floats:
        """Return each unit's difference to the mean, weighted by its arm's probability."""
        weights = np.where(self.is_model, 1 / self.shares, -1 / (1 - self.shares))
        return np.asarray((scores - self.means) * weights, dtype=np.float64)


def _compute_arm_log_path(model: Ints, people: Ints, share: float) -> Floats:
    """Return ln E of growing counts of two arms, the model's drawn with probability `share`."""
    betaln = scipy.special.betaln
    logs = [
        betaln(weight * share + model, weight * (1 - share) + people)
        - betaln(weight * share, weight * (1 - share))
        for weight in _ARM_CONCENTRATIONS
    ]
    likelihood = model * log(share) + people * log(1 - share)
    mixture = np.logaddexp.reduce(np.stack(logs), axis=0) - log(len(logs))
    return np.asarray(mixture - likelihood, dtype=np.float64)


def build_empty_arms() -> ArmUnits:
    """Return arms without units."""
    empty = np.empty(0)
    return ArmUnits(np.empty(0, np.int64), empty, np.empty(0, np.bool_), empty, empty)


def compute_gain_log_path(units: ArmUnits, *, at_least: float) -> Floats:
    """Return ln E against "the gain is at most `at_least`" after each slot.

    Unknown outcomes count against the model, so a missing one never helps.

    Args:
        units: those of the attempt.
        at_least: the threshold as a share of the outcome's range, in (−1, 1).

    Returns:
        float64, one for each slot with units.

    Raises:
        ValueError: the threshold or a share lies outside its range.
    """
    _check_threshold(at_least)
    _check_shares(units)
    return _compute_mixture_path(units, at_least)


def _compute_mixture_path(units: ArmUnits, at_least: float) -> Floats:
    differences = units.compute_weighted_differences(units.worst_scores)
    largest_loss = np.maximum(units.means / units.shares, (1 - units.means) / (1 - units.shares))
    ratios = (differences - at_least) / (largest_loss + at_least)
    logs = np.stack(list(_cumulate_bets(ratios, units.last_positions)))
    return np.asarray(np.logaddexp.reduce(logs, axis=0) - log(len(_get_stakes())), dtype=np.float64)


@cache
def _get_stakes() -> Floats:
    return 0.95 * 2.0 ** (-np.arange(16) / 2)


def _cumulate_bets(ratios: Floats, last_positions: Ints) -> Iterator[Floats]:
    """Yield for each stake the sum of the logs after each slot."""
    for stake in _get_stakes():
        yield np.cumsum(np.log1p(stake * ratios))[last_positions]


def compute_gain_lower_bound(units: ArmUnits, *, alpha: float) -> float:
    """Return a lower bound on the gain, valid at every look.

    Args:
        units: those of the attempt.
        alpha: chance of ever overstating the gain, in (0, 1).

    Returns:
        A share of the outcome's range in [−1, 1]: the threshold at which ln E is ln(1/alpha). −1
        where every threshold could still be true.

    Raises:
        ValueError: `alpha` or a share lies outside its range.
    """
    check_inside_unit(alpha=alpha)
    _check_shares(units)

    def compute_excess(at_least: float) -> float:
        return float(_compute_mixture_path(units, at_least)[-1]) + log(alpha)

    lowest, highest = -1 + 1e-9, 1 - 1e-9
    if not len(units) or compute_excess(lowest) < 0:
        return -1.0
    if compute_excess(highest) >= 0:
        return 1.0
    return float(scipy.optimize.brentq(compute_excess, lowest, highest, xtol=1e-10))


def compute_gain_interval(units: ArmUnits, *, alpha: float) -> tuple[float, float]:
    """Return lower and upper bound on the gain, together wrong at most in a share `alpha`.

    Unknown outcomes count against the model below, and against people above.

    Raises:
        ValueError: `alpha` or a share lies outside its range.
    """
    mirrored_units = replace(units, scores=1 - units.scores)
    return (
        compute_gain_lower_bound(units, alpha=alpha / 2),
        -compute_gain_lower_bound(mirrored_units, alpha=alpha / 2),
    )


def estimate_gain(units: ArmUnits) -> float | None:
    """Return the difference of the arms' means over known outcomes; None without both arms.

    Units of different π are compared with each other only, and weighted by their number.
    """
    closed_units = units.select(units.is_known)
    total, weight = 0.0, 0
    for share in np.unique(closed_units.shares):
        of_share = closed_units.shares == share
        model, people = of_share & closed_units.is_model, of_share & ~closed_units.is_model
        if model.any() and people.any():
            count = int(of_share.sum())
            total += count * float(
                closed_units.scores[model].mean() - closed_units.scores[people].mean()
            )
            weight += count
    return total / weight if weight else None


def compute_gain_alarm_path(units: ArmUnits, *, at_least: float) -> Floats:
    """Return the log of a guard's mean sum after each slot with known outcomes.

    An alarm at ln(`false_alarm_every`) comes on average after at least so many units while the gain
    is `at_least` or more. Units without an outcome are left out.

    Args:
        units: those since the guard's start.
        at_least: lowest acceptable gain as a share of the outcome's range, in (−1, 1).

    Raises:
        ValueError: the threshold or a share lies outside its range.
    """
    _check_threshold(at_least)
    _check_shares(units)
    watched_units = units.select(units.is_known)
    if not len(watched_units):
        return np.empty(0)
    differences = watched_units.compute_weighted_differences(watched_units.scores)
    largest_gain = np.maximum(
        (1 - watched_units.means) / watched_units.shares,
        watched_units.means / (1 - watched_units.shares),
    )
    ratios = (at_least - differences) / (largest_gain - at_least)
    sums = np.stack(list(_cumulate_bets(ratios, watched_units.last_positions)), axis=1)
    counts = np.diff(watched_units.last_positions, prepend=-1)
    return compute_log_path(np.diff(sums, axis=0, prepend=0.0), counts)


def _check_threshold(at_least: float) -> None:
    if not -1 < at_least < 1:
        raise ValueError(f"at_least is {at_least}; give a share of the range between −1 and 1")


def _check_shares(units: ArmUnits) -> None:
    if len(units) and not (units.shares.min() > 0 and units.shares.max() < 1):
        raise ValueError(
            f"shares lie between {units.shares.min()} and {units.shares.max()}; give probabilities"
            " inside (0, 1)"
        )
