"""The built-in data set: scikit-learn's 1797 handwritten digits, 8×8 (UCI, Alpaydin and Kaynak).

Only its bundled file is read: importing scikit-learn for it would cost a second and 90 MB.
"""

from __future__ import annotations

import gzip
import importlib.util
import os

import numpy as np
import numpy.typing as npt

from lanewise.data.data_set import Images, Labels
from lanewise.errors import DataError


def read_digits() -> tuple[Images, Labels]:
    """(uint8 (1797, 8, 8), int32 (1797,)); values 0..16 become round(v × 255 / 16)."""
    table = _table()
    levels = (np.arange(17, dtype=np.uint32) * 255 + 8) // 16
    images = levels.astype(np.uint8)[table[:, :64]].reshape(-1, 8, 8)
    return images, table[:, 64].astype(np.int32)


def _table() -> npt.NDArray[np.uint8]:
    """(1797, 65): 64 pixels and the digit."""
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("digits: they come with scikit-learn. Type: pip install scikit-learn")
    folder = found.submodule_search_locations[0]
    path = os.path.join(folder, "datasets", "data", "digits.csv.gz")
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            return np.loadtxt(file, np.uint8, delimiter=",")
    except FileNotFoundError:  # another layout of the package: let it find its own file
        from sklearn.datasets import load_digits

        digits = load_digits()
        return np.column_stack([digits.data, digits.target]).astype(np.uint8)
