"""Numbers in drawings: pixels to a tenth."""


def pixels(value: float) -> str:
    """Return a coordinate or a length, without a decimal that says nothing.

    >>> pixels(12.04), pixels(12.25)
    ('12', '12.2')
    """
    return f"{value:.1f}".removesuffix(".0")
