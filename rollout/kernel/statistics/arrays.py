"""Arrays by what they hold, as annotations; modules that load no NumPy import them for types."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
