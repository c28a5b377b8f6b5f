"""Cases that are all alike, five minutes apart."""

from datetime import timedelta

FIVE = timedelta(minutes=5)


def often(case, count, prefix="c", start=0, **labels):
    """Return `count` cases five minutes apart, all alike."""
    first = case("x").at
    numbers = range(start, start + count)
    return [case(f"{prefix}{n}", first + n * FIVE, **labels) for n in numbers]
