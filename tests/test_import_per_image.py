"""Sizes of one image where a module joins its images with another axis."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lanewise.bridge.importing import network
from lanewise.bridge.importing.per_image import Part, part
from lanewise.bridge.importing.user_code import build
from lanewise.bridge.networks import graph_of
from lanewise.net.layers import Input
from lanewise.size.report import SizeReport, size

FILE = Path(__file__).with_name("modules_to_import.py")


def sized(name: str, *image: int, batch: int = 1) -> SizeReport:
    return size(graph_of(f"{FILE}:{name}", Input(*image)), batch)


def test_the_part_of_an_image_is_what_another_image_adds() -> None:
    assert part((2, 5), (3, 5)) == Part((5,))
    assert part((12, 5), (18, 5)) == Part((6, 5))
    # Two heads, two places: an axis of two that is not the images'.
    assert part((2, 2, 5), (2, 3, 5)) == Part((2, 5))
    assert part((2, 7, 2, 5), (2, 7, 3, 5)) == Part((2, 7, 5))
    assert part((7, 8, 5), (7, 12, 5)) == Part((7, 4, 5))
    # A row that is there once, behind those of the images.
    assert part((13, 5), (19, 5)) == Part((6, 5))
    assert part((2, 5), (2, 5)) == Part((2, 5), once=True)


def test_what_does_not_grow_by_the_image_is_guessed() -> None:
    assert part((2, 2), (3, 3)) == Part((2,), known=False)
    assert part((4, 2, 5)) == Part((4, 5), known=False)
    assert part((2, 4), (3, 4, 1)) == Part((4,), known=False)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("Joined", (3, 6, 4)),
        ("images_first", (8, 3, 5)),
        ("sequence_first", (8, 3, 5)),
        ("sequence_first", (8, 2, 1)),
        ("Windows", (8, 6, 4)),
        ("Windows", (8, 2, 2)),
    ],
)
def test_macs_are_those_of_one_image_run_alone(name: str, image: tuple[int, int, int]) -> None:
    module = build(f"{FILE}:{name}", weights=True).module.train()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        # In training torch has no short cut, whose products the counter does not see.
        result = module(torch.zeros(1, *image))
    report = sized(name, *image)
    assert report.totals.flops == counter.get_total_flops()
    assert report.totals.params == sum(value.numel() for value in module.parameters())
    assert prod(report.rows[-1].output) == result.numel()


def test_rows_of_all_images_are_counted_for_one() -> None:
    rows = {row.name: row.output for row in sized("Joined", 3, 6, 4).rows}
    assert rows["reshape1"] == (24, 3) and rows["fc"] == (24, 7) == rows["softplus1"]


@pytest.mark.parametrize("name", ["images_first", "sequence_first"])
@pytest.mark.parametrize("places", [2, 15])
def test_a_transformer_layer_has_the_same_sizes_in_both_orders(name: str, places: int) -> None:
    rows = sized(name, 8, places, 1).rows[1:]
    wide = [row.output for row in rows if row.output[-1:] == (16,)]
    assert {row.output for row in rows} == {(places, 8), (places, 16)}
    assert len(wide) == 3


def test_windows_beside_the_images() -> None:
    rows = {row.name: row.output for row in sized("Windows", 8, 6, 4).rows}
    assert rows["reshape1"] == (6, 4, 8) and rows["qkv"] == (6, 4, 24)
    # Its images lie on the second axis, behind the three of queries, keys and values.
    assert rows["permute1"] == (3, 6, 2, 4, 4)
    assert rows["softmax1"] == (6, 2, 4, 4)


def test_a_value_of_all_images_is_counted_once() -> None:
    mean = sized("Centred", 8, 6, 4).rows[1]
    assert mean.output == (1, 8, 6, 4)
    assert mean.formula == "mean, not a layer of Lanewise; once for all images"
    one, many = (sized("Centred", 8, 6, 4, batch=batch) for batch in (1, 5))
    assert many.rows[1].activation_bytes == one.rows[1].activation_bytes == 4 * 192
    assert many.rows[2].activation_bytes == 5 * 4 * 192
    # The images, their mean and the result live at once.
    assert many.totals.peak_bytes == (5 + 1 + 5) * 4 * 192


def test_what_a_second_run_does_not_tell_is_said() -> None:
    other = sized("CountsImages", 8, 6, 4)
    assert "takes another way on 3 images" in " ".join(other.remarks)
    assert other.rows[1].output == (96, 4)
    each = sized("EachToEach", 8, 6, 4)
    assert "Not in proportion to the number of images, and sized as for 2: matmul (line" in (
        " ".join(each.remarks)
    )


def test_layers_alone_need_no_second_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    record = network.record

    def counted(module, image, whole):  # type: ignore[no-untyped-def]
        runs.append(image.shape[0])
        return record(module, image, whole)

    monkeypatch.setattr(network, "record", counted)
    sized("Functional", 1, 28, 28)
    assert runs == [2]
    sized("Joined", 3, 6, 4)
    assert runs == [2, 2, 3]
