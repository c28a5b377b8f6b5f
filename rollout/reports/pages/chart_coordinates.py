"""Coordinates, ticks and free places in drawings."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import ceil, floor, log10

MAX_TICKS = 5
TICK_SIZES = (1, 2, 5, 10)


def format_pixels(value: float) -> str:
    """Format a coordinate or length without needless decimals.

    >>> format_pixels(12.04), format_pixels(12.25)
    ('12', '12.2')
    """
    return f"{value:.1f}".removesuffix(".0")


def list_ticks(low: float, high: float) -> list[float]:
    """Return round values between two edges, at most six.

    >>> list_ticks(0.86, 1.0), list_ticks(0.0, 31.0)
    ([0.9, 0.95, 1.0], [0, 10, 20, 30])
    """
    span = high - low
    power = 10 ** floor(log10(span / MAX_TICKS))
    step = next(power * size for size in TICK_SIZES if span / (power * size) <= MAX_TICKS)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def spread_centers(
    targets: Sequence[float], sizes: Sequence[float], low: float, high: float
) -> list[float]:
    """Return centers that keep their order and don't overlap, nearest to `targets`.

    They lie between `low` and `high` if their sizes fit there together. This is the least-squares
    solution: pooling adjacent violators of the distances (Barlow et al., 1972).

    >>> spread_centers([50, 52, 90], [10, 10, 10], 0, 100)
    [46.0, 56.0, 90.0]
    >>> spread_centers([98, 99], [10, 10], 0, 100)
    [85.0, 95.0]
    """
    if not targets:
        return []
    half_steps = [(size + other) / 2 for size, other in pairwise(sizes)]
    offsets = [sizes[0] / 2, *half_steps]
    offsets = list(accumulate(offsets))
    blocks: list[tuple[float, int]] = []
    for center, offset in zip(targets, offsets, strict=True):
        blocks.append((center - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (mean, count), (other, other_count) = blocks.pop(), blocks.pop()
            total = count + other_count
            blocks.append(((mean * count + other * other_count) / total, total))
    last_start = max(high - sum(sizes), low)
    starts = [min(max(mean, low), last_start) for mean, count in blocks for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]
