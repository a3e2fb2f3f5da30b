"""THE CALCULUS: every size of a network, as exact integers, with the formula that gives it.

Here live the arithmetic along one axis (`axis`), the windows of layers (`windows`), the shape of
every layer's output (`shapes`, `joins`), what a network costs (`cost`, `field`, `memory`), and the
report of it all (`formula`, `report`, `table`), also of two networks beside each other (`against`).

How the frameworks read the same numbers (`conventions`) and so a whole text (`reading`), and where
they differ (`against_convention`). What a table does not say (`details`): what nobody reads and
what sees padding (`coverage`), which images fit (`inputs`), what training keeps
(`training_memory`).

The same rule backwards: `inverse` (intervals along one axis), `choices` (of one layer, within
`bounds`), `open_shapes` and `amounts` (channels that hang on a `?`), `solve` (a whole network, by
`reachable` sizes), what is `usual` (`ranking`), what comes `nearest`, how it is told (`found`), and
layers alike without a network (`chain`). Pictures are drawn by `picture`, of what `drawn` says.

May import: the standard library, `lanewise.errors`, `lanewise.flags`, `lanewise.net`.
"""
