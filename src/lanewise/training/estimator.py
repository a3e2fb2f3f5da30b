"""`Classifier`: a network as a scikit-learn estimator, for pipelines and searches.

    from sklearn.datasets import load_digits
    X, y = load_digits(return_X_y=True)
    Classifier(epochs=20).fit(X, y).score(X, y)

X may be images or rows:
    uint8 (N, H, W) or (N, H, W, C)    images as they are
    (N, F)                             rows, each one image: `image_shape` says which shape, or F is
                                       a square (64 → 8×8)
Values that are not uint8 are brought to 0 … 255 along a straight line from the smallest to the
largest value seen in `fit` (`value_range_`); later values outside it are clipped. So an image keeps
eight bits a value, as from a file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from lanewise.errors import DataError
from lanewise.training.model import Model, train

if TYPE_CHECKING:
    from lanewise.training.model import NetSpec

Array = npt.NDArray[Any]


class Classifier(ClassifierMixin, BaseEstimator):
    """A convolutional network with scikit-learn's interface.

    net: as `lanewise.Net` takes it; None: chosen for the images. image_shape: (H, W) or (H, W, C)
    of an image where X has rows. val_fraction: of the images, to choose the best epoch by; None: a
    tenth. The other parameters are those of `lanewise.training.recipe.Recipe`, None for the
    default. After `fit`: `classes_`, `model_`, `n_features_in_`, `value_range_`.
    """

    def __init__(
        self,
        net: NetSpec | None = None,
        *,
        epochs: int | None = None,
        batch: int | None = None,
        learning_rate: float | None = None,
        schedule: str | None = None,
        optimizer: str | None = None,
        weight_decay: float | None = None,
        smoothing: float | None = None,
        seed: int = 0,
        image_shape: tuple[int, ...] | None = None,
        val_fraction: float | None = None,
        threads: int | None = None,
        quiet: bool = True,
    ) -> None:
        self.net = net
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.smoothing = smoothing
        self.seed = seed
        self.image_shape = image_shape
        self.val_fraction = val_fraction
        self.threads = threads
        self.quiet = quiet

    def fit(self, X: Any, y: Any) -> Classifier:
        """Train on images X and labels y (of any type). DataError, a ValueError, for bad ones."""
        images, labels = np.asarray(X), np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(images):
            raise DataError(f"y: found shape {labels.shape}; wanted ({len(images)},)")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.n_features_in_ = math.prod(images.shape[1:])
        self.value_range_ = _value_range(images)
        self.model_: Model = train(
            self.net,
            (self._images(images), codes),
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            smoothing=self.smoothing,
            seed=self.seed,
            val_fraction=self.val_fraction,
            test_fraction=0,
            threads=self.threads,
            quiet=self.quiet,
        )
        return self

    def predict(self, X: Any) -> Array:
        """The class of each image, as it was in y."""
        probabilities = self.predict_proba(X)
        labels: Array = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> npt.NDArray[np.float32]:
        """float32 (N, K): the probability of each class of `classes_`."""
        check_is_fitted(self, "model_")
        images = np.asarray(X)
        if math.prod(images.shape[1:]) != self.n_features_in_:
            raise DataError(
                f"X: found {math.prod(images.shape[1:])} values an image; the classifier was "
                f"fitted with {self.n_features_in_}"
            )
        return self.model_.predict_proba(self._images(images))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _images(self, X: Array) -> npt.NDArray[np.uint8]:
        """uint8 (N, H, W[, C])."""
        if X.ndim == 2:
            X = X.reshape(len(X), *(self.image_shape or _square(X.shape[1])))
        if X.dtype == np.uint8:
            return X
        _value_range(X)
        low, high = self.value_range_
        scaled = (X.astype(np.float64) - low) * (255 / ((high - low) or 1.0))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _value_range(X: Array) -> tuple[float, float]:
    """(smallest, largest) of the values; DataError where they are no finite numbers."""
    if X.dtype.kind not in "fiub" or not X.size:
        raise DataError(
            f"X: found {X.dtype} of shape {X.shape}; wanted numbers, (N, H, W) or (N, F)"
        )
    low, high = float(X.min()), float(X.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise DataError("X: holds NaN or infinite values; wanted numbers: np.nan_to_num(X)")
    return low, high


def _square(features: int) -> tuple[int, int]:
    side = math.isqrt(features)
    if side * side != features:
        raise DataError(
            f"X: rows of {features} values are no square image; give image_shape=(H, W) or "
            "(H, W, C), or X of shape (N, H, W)"
        )
    return side, side
