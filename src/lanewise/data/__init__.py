"""IMAGES: from files or arrays to one uint8 store, split and described.

One way through this room:

    spec ─ scan / idx / npz / digits / arrays ─ decode + preprocess ─ store ─ split ─ DataSet

What may live here: finding images, decoding them, bringing them to one size and colour, the cached
store, splits, duplicates, mean and deviation, and the record `Preprocessing` that repeats all of it
for a later image. What may not: nets, training, metrics, anything that draws.
It imports `lanewise.errors` and `lanewise.flags` only; Pillow and simplejpeg when first needed,
scikit-learn never (its bundled digits are read as a file).

DATA (the `spec` of `open_data`) is one of
    "digits"                     scikit-learn's 1797 digits, 8×8, values 0..16 brought to 0..255
    a folder of class folders    photos/cat/*.jpg …; train/, val|valid|validation/, test/ may stand
                                 above. Classes are sorted as strings (code points): 10 before 2.
    a folder with IDX files      train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-…
    a file name.npz              `images` (N,H,W or N,H,W,C uint8), `labels`, maybe `class_names`
    (images, labels)             the same two as arrays in memory

How each pixel format becomes gray or RGB bytes is written in `lanewise.data.pixels`, how an image
is brought to the net's size in `lanewise.data.fit`.
"""

from __future__ import annotations

from lanewise.data.data_set import DataSet, Skipped, Split
from lanewise.data.opening import native_shape, open_data, open_test
from lanewise.data.preprocessing import Preprocessing
from lanewise.data.scan import list_images

__all__ = [
    "DataSet",
    "Preprocessing",
    "Skipped",
    "Split",
    "list_images",
    "native_shape",
    "open_data",
    "open_test",
]
