"""One file per family of layers: the loop nests, forward and gradients next to each other.

A kernel here is a pure function from sizes (and a register tile) to a `nest.Kernel`; nothing is
compiled, nothing is run. With the smallest tile a kernel reads like the layer's definition.
`taps.py` turns stride, padding and dilation
into tables, so that no kernel has edge code and no multiply–add is spent on padding.
"""
