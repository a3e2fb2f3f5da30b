"""Which image stands where in an epoch: a function of (seed, epoch) and of nothing else.

So a training that goes on in the middle of an epoch sees the very batches it would have seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def epoch_order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """int64 (count,): a permutation of the images, drawn for this epoch (0 …).

    The raw 64-bit stream of Philox (Salmon et al. 2011) is sorted: numpy guarantees that stream for
    all its versions, which it does not for its shuffling.
    """
    keys = np.random.Philox(key=[seed, epoch]).random_raw(count)
    return np.argsort(keys, kind="stable")
