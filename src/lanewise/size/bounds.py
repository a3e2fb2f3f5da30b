"""How far the numbers are looked for that a `?` stands for.

"Every solution" is a true word only within bounds: a kernel with as much padding more gives the
same size for ever. Only what a `?` stands for is bounded, never a number that the text says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# The largest kernel and stride looked for, where the map is not larger (AlexNet's first is 11).
USUAL = 11


@dataclass(frozen=True)
class Bounds:
    """`whole_map`: kernels and strides up to the map's size; else up to `most`."""

    whole_map: bool
    most: int = USUAL

    def extent(self, n: int) -> int:
        """The largest extent of a kernel over a map of this size; dilated, it is no larger."""
        return max(n, self.most) if self.whole_map else self.most

    def stride(self, n: int) -> int:
        """The largest stride over a map of this size."""
        return max(n, 1) if self.whole_map else self.most

    def pad(self, extent: int, pool: bool) -> int:
        """The largest padding of a side: each window of a convolution sees a value of the map; of
        a pool, at least half of its window lies on the map (PyTorch's rule)."""
        return extent // 2 if pool else extent - 1

    def told(self, fields: set[str], pools: bool) -> Iterator[str]:
        """What was looked for, for the fields in which a `?` stands; `pools`: in one of a pool."""
        size = "the map's size" if self.whole_map else str(self.most)
        least = f" (at least {self.most})" if self.whole_map else ""
        if "dilation" in fields:
            yield f"dilated kernels that reach over at most {size}{least}"
        elif "kernel" in fields:
            yield f"kernels up to {size}{least}"
        if "stride" in fields:
            yield f"strides up to {size}"
        if "pad" in fields:
            half = ", of a pool at most half of it" if pools else ""
            yield f"padding of a side less than the kernel{half}"
        if "output_pad" in fields:
            yield "outputpad less than the stride or the dilation"
