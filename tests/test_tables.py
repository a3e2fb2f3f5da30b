"""Every view of a layer is a table keyed by its kind: no kind may be missing from any table.

A new table is one line in TABLES. Where a kind has no rule on purpose, the reason stands beside it.
"""

from __future__ import annotations

from importlib import import_module

import pytest

from lanewise.net.check import RULES
from lanewise.net.grammar import FORMS
from lanewise.net.layers import JOINS, KINDS, Flatten, Foreign, Input, Layer, Pool

NO_KERNEL: dict[type[Layer], str] = {
    Input: "images are gathered, normalised and laid out before the first layer",
    Flatten: "another name for the same values; whoever reads them knows how they lie",
}

# Kinds of imported networks that can be sized and nothing else.
SIZED_ONLY: tuple[type[Layer], ...] = (Foreign,)
SIZED = (
    "SHAPES",
    "FORMULAS",
    "PARAMETERS",
    "BUFFERS",
    "MACS",
    "CONNECTIONS",
    "FIELDS",
    "IN_PLACE",
    "SAVED",
    "READS",
)

NO_COUNT: dict[type[Layer], str] = {
    Input: "its channels are numbers",
    **dict.fromkeys((Flatten, *JOINS), "it has the heights and widths of its inputs in it"),
}

# (module, table) → kinds without a rule, each with its reason.
TABLES: dict[tuple[str, str], dict[type[Layer], str]] = {
    ("lanewise.net.grammar", "FORMS"): {},
    ("lanewise.size.shapes", "SHAPES"): {},
    ("lanewise.size.formula", "FORMULAS"): {},
    ("lanewise.size.open_shapes", "COUNTS"): NO_COUNT,
    ("lanewise.size.cost", "PARAMETERS"): {},
    ("lanewise.size.cost", "BUFFERS"): {},
    ("lanewise.size.cost", "MACS"): {},
    ("lanewise.size.cost", "CONNECTIONS"): {},
    ("lanewise.size.field", "FIELDS"): {},
    ("lanewise.size.memory", "IN_PLACE"): {},
    ("lanewise.size.training_memory", "SAVED"): {},
    ("lanewise.size.coverage", "READS"): {},
    ("lanewise.bridge.torch_module", "RULES"): {},
    ("lanewise.bridge.rounding", "ARITHMETIC"): {},
    ("lanewise.ship.onnx_rules", "OPERATORS"): {},
    ("lanewise.native.rules", "FORWARD"): NO_KERNEL,
    ("lanewise.native.rules", "GRADIENT"): NO_KERNEL,
    ("lanewise.native.latency.rules", "RULES"): NO_KERNEL,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
@pytest.mark.parametrize("place", TABLES, ids=lambda place: ".".join(place))
def test_every_kind_has_a_rule_or_a_reason(place: tuple[str, str], kind: type[Layer]) -> None:
    module, name = place
    table = getattr(import_module(module), name)
    reason = TABLES[place].get(kind)
    if reason is None:
        assert kind in table
    else:
        assert reason
        assert kind not in table


@pytest.mark.parametrize("place", TABLES, ids=lambda place: ".".join(place))
def test_no_table_has_a_rule_for_what_is_no_kind(place: tuple[str, str]) -> None:
    module, name = place
    more = set(SIZED_ONLY) if name in SIZED else set()
    assert set(getattr(import_module(module), name)) - set(KINDS) == more


def test_kinds_are_all_layers() -> None:
    def leaves(kind: type[Layer]) -> set[type[Layer]]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    assert leaves(Layer) == {*KINDS, *SIZED_ONLY}
    assert Pool not in KINDS
    assert len({kind.word for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_every_field_can_be_written_and_has_a_rule(kind: type[Layer]) -> None:
    form = FORMS[kind]
    written = list(form.slot.fields) if form.slot else []
    written += [option.field for option in form.options]
    written += [flag.field for flag in form.flags]
    fields = [name for name in getattr(kind, "__dataclass_fields__", {}) if name != "word"]
    assert sorted(written) == sorted(fields)
    assert set(fields) <= set(RULES)
