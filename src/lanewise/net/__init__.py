"""THE DESCRIPTION: what a network is, and its text.

Here live the layer kinds (`layers`), the graph of them (`graph`), text → graph (`parse`), the rules
of its structure (`check`), graph → text (`show`), numbers to be found (`unknown`), and where
descriptions come from (`load`, the published networks in `zoo/*.net` and their variants, `family`).
Nothing here knows a size: that is the room `size`.

A text is read in steps: `source` finds statements and braces, `expand` unfolds blocks (`blocks`),
repetition and branches into one row of layers (`drafts`), and `words` reads each of them by the
table `grammar`, with numbers (`values`) that may be arithmetic of parameters (`expression`).

May import: the standard library, `lanewise.errors`, `lanewise.flags`.
"""
