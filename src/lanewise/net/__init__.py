"""THE DESCRIPTION: what a network is, and its text.

Here live the layer kinds (`layers`), the graph of them (`graph`), text → graph (`parse`), the rules
of its structure (`check`), graph → text (`show`), and where descriptions come from (`load`, the
published networks in `zoo/*.net`). Nothing here knows a size: that is the room `size`.

May import: the standard library, `lanewise.errors`, `lanewise.flags`.
"""
