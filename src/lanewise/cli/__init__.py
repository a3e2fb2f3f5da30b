"""The command line: `main` and one thin file per verb, each with `add(parser)` and `run(args)`.

A verb translates arguments into calls of the other rooms and their results into text or JSON; it
computes nothing itself. `main` imports only the verb that was asked for.

May import: every room, inside the functions that need it.
"""
