"""Recipes, schedules, the order of an epoch, and the network chosen for the data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanewise.errors import LanewiseError, NetError, SizeError
from lanewise.net.layers import Linear, RadialBasis
from lanewise.net.load import load, read_text
from lanewise.net.parse import parse
from lanewise.size.shapes import infer_shapes
from lanewise.training.choice import (
    Choice,
    check_trainable,
    default_net,
    fit_classes,
    note_enlarging,
)
from lanewise.training.order import epoch_order
from lanewise.training.recipe import Recipe, RecipeError, Task, choose_recipe
from lanewise.training.schedule import SCHEDULES, constant, cosine, learning_rates, one_cycle

# Schedules ---------------------------------------------------------------------------------------


def torch_rates(make: object, steps: int) -> list[float]:
    """The rates that a PyTorch scheduler gives for `steps` steps."""
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4, momentum=0.9)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("steps", "warm_up"), [(10, 0.3), (1000, 0.3), (77, 0.1), (50, 0.5)])
def test_one_cycle_is_that_of_torch(steps: int, warm_up: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of the schedule")
    wanted = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.4, total_steps=steps, pct_start=warm_up
        ),
        steps,
    )
    ours = [one_cycle(step, steps, 0.4, warm_up) for step in range(steps)]
    np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_cosine_is_that_of_torch(steps: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the reference of the schedule")
    wanted = torch_rates(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), steps
    )
    ours = [cosine(step, steps, 0.4, 0.0) for step in range(steps)]
    np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


def test_warm_up_rises_in_a_straight_line_to_the_peak() -> None:
    rates = [constant(step, 20, 1.0, 0.2) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == [1.0] * 16
    assert [cosine(step, 20, 1.0, 0.2) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 300),
    warm_up=st.floats(0, 1),
    peak=st.floats(1e-6, 100),
)
def test_every_rate_is_between_nothing_and_the_peak(
    name: str, steps: int, warm_up: float, peak: float
) -> None:
    rates = [SCHEDULES[name](step, steps, peak, warm_up) for step in range(steps)]
    assert all(0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    assert all(np.isfinite(rates))


@given(name=st.sampled_from(sorted(SCHEDULES)), steps=st.integers(1, 60), cut=st.integers(0, 60))
def test_rates_do_not_depend_on_where_a_call_ends(name: str, steps: int, cut: int) -> None:
    cut = min(cut, steps)
    whole = learning_rates(name, 0, steps, steps, 0.1, 0.3)
    parts = [
        learning_rates(name, 0, cut, steps, 0.1, 0.3),
        learning_rates(name, cut, steps - cut, steps, 0.1, 0.3),
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float32


# The order of an epoch ---------------------------------------------------------------------------


@given(count=st.integers(1, 2000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_an_epoch_shows_every_image_once(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = epoch_order(1000, 0, 0)
    np.testing.assert_array_equal(first, epoch_order(1000, 0, 0))
    for other in (epoch_order(1000, 0, 1), epoch_order(1000, 1, 0)):
        assert (first != other).mean() > 0.9


def test_the_order_is_the_same_in_every_version() -> None:
    assert epoch_order(8, 0, 0).tolist() == PINNED


PINNED = [0, 2, 1, 5, 4, 3, 6, 7]

DIGITS = Task(images=1437, channels=1, layers=4, params=25_000)
MNIST = Task(images=55_000, channels=1, layers=5, params=61_706)
PHOTOS = Task(images=20_000, channels=3, layers=8, params=550_000)

# Recipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("epochs", 0, "a whole number, 1 to"),
        ("epochs", 2.5, "a whole number, 1 to"),
        ("epochs", True, "a whole number, 1 to"),
        ("batch", -1, "such as 128"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("learning_rate", "fast", "above 0"),
        ("schedule", "linear", "constant or cosine or one-cycle"),
        ("schedule", [], "constant or cosine or one-cycle"),
        ("optimizer", "adam", "sgd or adamw"),
        ("momentum", 1, "below 1"),
        ("betas", (0.9,), "two numbers"),
        ("betas", 0.9, "two numbers"),
        ("weight_decay", -0.1, "0 to 1000"),
        ("smoothing", 1.0, "below 1"),
        ("warm_up", 1.5, "0 to 1"),
        ("seed", -1, ", 0 to"),
        ("seed", 2**63, ", 0 to"),
        ("nesterov", 1, "True or False"),
        ("epsilon", 0, "above 0"),
    ],
)
def test_an_impossible_setting_is_refused(setting: str, value: object, remedy: str) -> None:
    with pytest.raises(RecipeError, match=setting.replace("_", " ")) as refusal:
        choose_recipe(DIGITS, {setting: value})
    assert remedy in str(refusal.value)
    assert isinstance(refusal.value, LanewiseError) and isinstance(refusal.value, ValueError)


def test_an_unknown_setting_is_refused_with_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no setting is called lr; there are epochs, .*seed"):
        choose_recipe(DIGITS, {"lr": 0.1})


def test_defaults_follow_the_data_and_the_net() -> None:
    digits, mnist, photos = (choose_recipe(task, {}) for task in (DIGITS, MNIST, PHOTOS))
    assert digits.epochs > mnist.epochs and digits.batch < mnist.batch
    assert digits.learning_rate < mnist.learning_rate == 0.1
    assert mnist.epochs == 4 and (mnist.optimizer, photos.optimizer) == ("sgd", "adamw")
    assert photos.epochs > choose_recipe(replace(MNIST, images=PHOTOS.images), {}).epochs
    large = choose_recipe(replace(PHOTOS, params=60_000_000), {})
    assert large.learning_rate < photos.learning_rate


def test_normalised_nets_bear_larger_rates_when_they_are_large() -> None:
    large = replace(PHOTOS, params=11_000_000)
    plain, normed = (choose_recipe(replace(large, normed=value), {}) for value in (False, True))
    assert (plain.learning_rate, normed.learning_rate) == (3e-4, 1e-3)
    small = choose_recipe(replace(PHOTOS, normed=True), {})
    assert small.learning_rate == choose_recipe(PHOTOS, {}).learning_rate == 2e-3
    assert zoo("resnet18").normed and zoo("convnext-tiny").normed
    assert not zoo("alexnet-2012").normed and not zoo("vgg16").normed


def test_given_settings_win_and_their_companions_follow() -> None:
    chosen = choose_recipe(MNIST, {"epochs": 7, "seed": 3, "batch": None})
    assert (chosen.epochs, chosen.seed, chosen.batch) == (7, 3, 128)
    adamw = choose_recipe(MNIST, {"optimizer": "adamw"})
    assert adamw.learning_rate < 0.01 and adamw.weight_decay == 0.01
    assert choose_recipe(MNIST, {"batch": 32}).learning_rate == 0.05


def test_a_net_of_distances_learns_with_a_tenth_of_the_rate() -> None:
    """Of LeNet-5 (1998) with 0.1 the loss leaves all bounds."""
    radial = choose_recipe(replace(MNIST, radial=True), {})
    assert (radial.optimizer, radial.learning_rate) == ("sgd", 0.01)
    assert zoo("lenet5-1998").radial and not zoo("lenet5").radial


@pytest.mark.parametrize(
    ("images", "batch"), [(1436, 32), (1441, 31), (32 * 31 + 1, 30), (8065, 127), (1, 2), (3, 32)]
)
def test_no_image_is_left_alone_where_statistics_need_two(images: int, batch: int) -> None:
    task = replace(PHOTOS, images=images, pairs=True)
    assert choose_recipe(task, {}).batch == batch
    assert choose_recipe(task, {"batch": 5}).batch == 5
    assert choose_recipe(replace(task, pairs=False), {}).batch in (32, 128)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("input 3x4x4; conv 2 k4; bn; flatten; linear 2", True),
        ("input 3x4x4; conv 2 k3; bn; flatten; bn noaffine; linear 2", True),
        ("input 3x4x4; conv 2 k3; bn; flatten; linear 2", False),
        ("input 3x4x4; globalavg; layernorm; flatten; linear 2", False),
    ],
)
def test_which_nets_need_pairs_of_images(text: str, pairs: bool) -> None:
    assert Choice(text, parse(text)).pairs == pairs


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(optimizer="adamw", betas=(0.8, 0.9), seed=7)])
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_run_from_before_there_was_a_choice_is_exact() -> None:
    old = Recipe(seed=3).to_json()
    del old["exact"]
    assert Recipe.from_json(old) == Recipe(seed=3, exact=True)
    assert str(Recipe(exact=True)).endswith(", exact") and "exact" not in str(Recipe())


@pytest.mark.parametrize("spoilt", [{}, [], {**Recipe().to_json(), "more": 1}])
def test_a_spoilt_record_is_refused(spoilt: object) -> None:
    with pytest.raises(RecipeError, match="wanted"):
        Recipe.from_json(spoilt)  # type: ignore[arg-type]


def test_steps_count_the_short_last_batch() -> None:
    assert [Recipe(batch=16).steps_per_epoch(images) for images in (15, 16, 17, 32, 33)] == [
        1,
        1,
        2,
        2,
        3,
    ]


def test_a_recipe_in_words() -> None:
    text = str(Recipe(epochs=1, smoothing=0.1))
    assert text.startswith("1 epoch, batch 128, SGD momentum 0.9 Nesterov")
    assert "smoothing 0.1" in text


# The network for the data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("native", "name", "shape"),
    [
        ((1, 8, 8), "tiny-conv", (1, 8, 8)),
        ((3, 12, 10), "tiny-conv", (3, 12, 10)),
        ((1, 28, 28), "lenet5", (1, 28, 28)),
        ((1, 12, 32), "lenet5", (1, 12, 32)),
        ((3, 28, 28), "small-vgg", (3, 28, 28)),
        ((3, 32, 32), "small-vgg", (3, 32, 32)),
        ((1, 48, 48), "small-vgg", (1, 48, 48)),
        ((3, 480, 640), "small-vgg", (3, 64, 64)),
        ((3, 500, 40), "small-vgg", (3, 64, 40)),
        ((1, 1, 1), "small-vgg", (1, 8, 8)),
        ((1, 300, 2), "small-vgg", (1, 64, 8)),
    ],
)
def test_the_default_net_fits_the_images(
    native: tuple[int, int, int], name: str, shape: tuple[int, int, int]
) -> None:
    choice = fit_classes(default_net(native), 7)
    check_trainable(choice)
    assert (choice.name, choice.input_shape) == (name, shape)
    assert infer_shapes(choice.graph)[choice.graph.output.name] == (7,)
    assert len(choice.notes) == 1, "a chosen net needs no word about its classes"
    assert name in choice.notes[0] and ("resized" in choice.notes[0]) == (shape != native)


def zoo(name: str) -> Choice:
    return Choice(read_text(name)[0], load(name))


def test_a_net_that_fits_keeps_its_very_text() -> None:
    choice = fit_classes(zoo("lenet5"), 10)
    assert choice.text == read_text("lenet5")[0] and not choice.notes


def test_another_number_of_classes_changes_the_last_layer_and_says_so() -> None:
    choice = fit_classes(zoo("lenet5"), 3)
    assert choice.graph.output.layer == Linear(3)
    assert "linear 10" in choice.notes[0] and "3 classes" in choice.notes[0]
    assert parse(choice.text) == choice.graph and choice.name == "lenet5"


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet20", "linear"),
        ("resnet-cifar n=1 width=0.5", "linear"),
        ("squeezenet1-1", "flatten"),
        ("nin-cifar", "flatten"),
        ("shufflenet-v2-x0-5", "linear"),
        ("alexnet", "linear"),
    ],
)
def test_a_family_gets_its_parameter_classes_and_keeps_its_text(name: str, last: str) -> None:
    before = zoo(name)
    choice = fit_classes(before, 7)
    shapes = infer_shapes(choice.graph)
    assert shapes[choice.graph.output.name] == (7,) and choice.graph.output.layer.word == last
    changed = [
        (old, new)
        for old, new in zip(before.text.split("\n"), choice.text.split("\n"), strict=True)
        if old != new
    ]
    ((old, new),) = changed
    assert old.startswith("parameters ") and "classes=7" in new
    assert choice.name == name and parse(choice.text) == choice.graph
    assert choice.notes[0].endswith("has 7 classes: its parameter classes is now 7")


def test_a_family_that_fits_is_left_alone() -> None:
    choice = fit_classes(zoo("resnet20"), 10)
    assert choice.text == read_text("resnet20")[0] and not choice.notes


def test_classes_in_a_name_are_those_of_the_data() -> None:
    choice = fit_classes(zoo("resnet20 classes=5 width=0.5"), 3)
    assert choice.name == "resnet20 classes=3 width=0.5"
    assert choice.notes[0].startswith("resnet20 classes=5 width=0.5 has 5 outputs")


def test_a_parameter_that_decides_something_else_is_left() -> None:
    text = "parameters classes=4\ninput 1x8x8; conv classes k1; flatten; linear 10"
    choice = fit_classes(Choice(text, parse(text)), 3)
    assert choice.graph.output.layer == Linear(3) and choice.graph.nodes[1].layer.kernels == 4


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("resnet18", "resnet18 size=32"),
        ("resnet18 size=96 width=0.5", "resnet18 width=0.5 size=32"),
        ("resnet18 size=48", ""),
        ("lenet5", ""),
        ("alexnet", ""),  # it cannot be that small
    ],
)
def test_a_net_that_enlarges_the_images_says_how_it_need_not(name: str, advice: str) -> None:
    choice = note_enlarging(zoo(name), (3, 32, 30))
    assert [f'`--net "{advice}"`' in note for note in choice.notes] == [True] * bool(advice)


def test_codes_are_fitted_too() -> None:
    choice = fit_classes(zoo("lenet5-1998"), 4)
    assert choice.graph.output.layer == RadialBasis(4) and parse(choice.text) == choice.graph
    assert choice.notes == (
        "lenet5-1998 ends in rbf 10 and the data has 4 classes: rbf1 is now rbf 4",
    )


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("input 1x8x8; conv 4 k3", NetError, "add `flatten` and `linear K`"),
        ("input 1x8x8; flatten; relu", NetError, "nothing to train"),
        ("input 1x8x8; conv 4 k9; flatten; linear 2", SizeError, "no output position"),
    ],
)
def test_a_net_that_cannot_be_trained_is_refused(
    text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_trainable(Choice(text, parse(text)))


def test_an_end_that_cannot_be_changed_is_refused() -> None:
    text = "input 1x8x8; flatten; linear 9; tanh"
    with pytest.raises(NetError, match="gives 9 values for 10 classes; add `linear 10`"):
        fit_classes(Choice(text, parse(text)), 10)
