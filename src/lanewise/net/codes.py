"""The codes of a radial basis layer: for each output the row of ±1 that its input is measured at.

They belong to the network as much as its layers do, and are never trained. LeNet-5 (1998) measures
84 features against pictures of the ten digits, 7 wide and 12 high; these are drawn anew.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

Codes: TypeAlias = tuple[tuple[int, ...], ...]

DIGITS = """
    ..###..  ...##..  .#####.  .#####.  ....##.  #######  ..####.  #######  .#####.  .#####.
    .##.##.  ..###..  ##...##  ##...##  ...###.  ##.....  .##....  .....##  ##...##  ##...##
    ##...##  .####..  ##...##  .....##  ..####.  ##.....  ##.....  .....##  ##...##  ##...##
    ##...##  ##.##..  .....##  .....##  .##.##.  ##.....  ##.....  ....##.  ##...##  ##...##
    ##...##  ...##..  .....##  .....##  .##.##.  ######.  ##.....  ....##.  ##...##  ##...##
    ##...##  ...##..  ....##.  ..####.  ##..##.  .....##  ######.  ...##..  .#####.  ##...##
    ##...##  ...##..  ...##..  .....##  ##..##.  .....##  ##...##  ...##..  ##...##  .######
    ##...##  ...##..  ..##...  .....##  #######  .....##  ##...##  ..##...  ##...##  .....##
    ##...##  ...##..  .##....  .....##  ....##.  .....##  ##...##  ..##...  ##...##  .....##
    ##...##  ...##..  ##.....  .....##  ....##.  .....##  ##...##  .##....  ##...##  .....##
    .##.##.  ...##..  ##.....  ##...##  ....##.  ##...##  ##...##  .##....  ##...##  ....##.
    ..###..  .######  #######  .#####.  ....##.  .#####.  .#####.  .##....  .#####.  .####..
"""


@lru_cache(maxsize=8)
def radial_codes(outputs: int, features: int) -> Codes:
    """outputs × features of ±1, no two rows alike: the digits for 10 × 84, a pattern otherwise.

    ValueError where so few features cannot tell so many outputs apart.
    """
    if outputs > 1 << features:
        raise ValueError(
            f"{features} features of ±1 tell {1 << features} outputs apart, not {outputs}"
        )
    return _digits() if (outputs, features) == (10, 84) else _pattern(outputs, features)


def _digits() -> Codes:
    rows = [line.split() for line in DIGITS.split("\n") if line]
    pictures = zip(*rows, strict=True)
    return tuple(
        tuple(1 if pixel == "#" else -1 for pixel in "".join(picture)) for picture in pictures
    )


def _pattern(outputs: int, features: int) -> Codes:
    """Rows of a Hadamard code: each feature tells whether some bits of the output's number are odd.

    Every feature stands beside its opposite, so that half of each row is +1; where there is room
    for that only by losing a bit of the number, none does.
    """
    bits = max(1, (outputs - 1).bit_length())
    paired = features >= 2 * bits
    masks = _masks(bits, features)
    columns = [(masks[j // 2 if paired else j], paired and j % 2) for j in range(features)]
    return tuple(
        tuple(1 - 2 * (((number & mask).bit_count() + flip) % 2) for mask, flip in columns)
        for number in range(outputs)
    )


def _masks(bits: int, count: int) -> list[int]:
    """So many choices of bits: every bit alone first, then the others, over and over."""
    alone = [1 << bit for bit in range(bits)]
    others = (mask for mask in range(1, min(1 << bits, 2 * count + 2)) if mask & (mask - 1))
    cycle = [*alone, *others]
    return [cycle[index % len(cycle)] for index in range(count)]
