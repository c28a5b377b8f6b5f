"""Types of arrays, and their libraries, imported when something first computes with them.

NumPy and SciPy take as long to import as all rules of a policy. Most commands, and a replica that
answers for sites without windows, compute nothing with them: they read the same rules, whose
modules name both.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


class LateModule:
    """Stands for a module until one of its names is asked for.

    A name is looked up once; after that it is an attribute like others, so that loops over cells
    pay nothing for it. Type checkers see the module itself, as below. Whoever imports it may use it
    in functions only, and their annotations stay unread (`from __future__ import annotations`).

    >>> fractions = LateModule("fractions")
    >>> str(fractions.Fraction(2, 4)), "Fraction" in vars(fractions)
    ('1/2', True)
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """Import the module, and keep what it has under this name."""
        value = getattr(import_module(self._name), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import narwhals as nw
    import numpy as np
    import polars as pl
    import scipy
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
else:
    nw, np, pl, scipy = map(LateModule, ("narwhals", "numpy", "polars", "scipy"))
    Bools = Floats = Ints = Any

__all__ = ["Bools", "Floats", "Ints", "LateModule", "np", "nw", "pl", "scipy"]
