"""Winograd's transform of the sources, Bᵀ x B, for a block of tiles."""

from __future__ import annotations

from collections.abc import Sequence

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.fused_norm import AsItStands, Plain, Reading, Reads
from lanewise.native.kernels.winograd_edges import Load, TileReader, edges_shape, tile_reads
from lanewise.native.kernels.winograd_patches import Patches, patches_shape
from lanewise.native.kernels.winograd_places import Winograd, block_tiles
from lanewise.native.kernels.winograd_transforms import spread
from lanewise.native.nest import Buffer, Entry, Index, Value, Var, as_index, table
from lanewise.native.writer import Writer

#: points along one axis → the rows that are worked out together: no more values than registers
#: hold; a pair of points stays together
ROWS: dict[int, Sequence[Sequence[int]]] = {
    4: (range(4),),
    6: (range(3), range(3, 6)),
    8: ((1, 2), (3, 4), (5, 6), (0, 7)),
}


def room_shape(sizes: Winograd, block: int, reads: Reads) -> tuple[int, int, int, int]:
    """What is copied of the sources: all that a block reads, if something is made of it on the way,
    else tiles at the edges."""
    plain = isinstance(reads, AsItStands)
    return edges_shape(sizes, block) if plain else patches_shape(sizes, block)


class SourceTransform:
    """Writes the transforms of some sources into `target` (points, sources, tiles, lanes)."""

    def __init__(
        self,
        writer: Writer,
        sizes: Winograd,
        reading: Reading,
        target: Buffer,
        room: Buffer,
        block: int,
    ) -> None:
        """`room`: of `room_shape`; `block`: tiles of a block."""
        self.writer, self.target, self.size = writer, target, block
        self.matrix = sizes.algorithm.source
        self.tiles = table("source_tiles", block_tiles(sizes, block))
        self.reader: TileReader | Patches
        if isinstance(reading, Plain):
            places, columns = tile_reads(sizes, block), sizes.columns.source
            self.reader = TileReader(writer, reading.buffers[0], room, places, columns)
        else:
            self.reader = Patches(writer, reading, room, sizes, block)

    def clear(self) -> None:
        """Once, before the first block."""
        self.reader.clear()

    def block(self, b: Var, first: Index, sources: int) -> None:
        """Block b of so many sources from the first on."""
        writer, reader = self.writer, self.reader
        with writer.loop("c", sources) as c:
            if isinstance(reader, Patches):
                reader.fill(b, first + c)
            with writer.loop("i", Entry(self.tiles, as_index(b))) as i:
                if isinstance(reader, Patches):
                    self._one(c, i, reader.loads(b, i))
                else:
                    self._where_it_stands(reader, b, i, c, first)

    def _where_it_stands(self, reader: TileReader, b: Var, i: Var, c: Var, first: Index) -> None:
        reader.read(
            as_index(b) * self.size + i,
            lambda row, column: (first + c, row, column, 0),
            lambda load: self._one(c, i, load),
        )

    def _one(self, c: Var, i: Var, load: Load) -> None:
        """One tile of one source, some rows of points at a time (`ROWS`)."""
        size = len(self.matrix.rows)
        for rows in ROWS[size]:
            columns = [self._column(rows, s, load) for s in range(size)]
            for place, p in enumerate(rows):
                line = spread(self.writer, self.matrix, [column[place] for column in columns])
                for q, value in enumerate(line):
                    at = p * size + q, c, i, 0
                    self.writer.store(self.target, *at, value=value)

    def _column(self, rows: Sequence[int], s: int, load: Load) -> Sequence[Value]:
        """Some rows of Bᵀ times a column of the tile; of which only what they need is loaded."""
        matrix = self.matrix
        needed = [any(column[p] for p in rows) for column in matrix.columns]
        values: list[Value] = [
            self.writer.let(load(r, s), "x") if need else number(0.0)
            for r, need in enumerate(needed)
        ]
        return spread(self.writer, matrix, values, rows)
