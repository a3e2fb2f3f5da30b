"""Splits are complete, disjoint, stratified, seeded; hashes find exactly the equal images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanewise.data.data_set import Numbered, Split
from lanewise.data.moments import channel_moments
from lanewise.data.rows import count_duplicates, image_hashes
from lanewise.data.split import quotas, shuffle_keys, stratified, wanted_count

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(lambda counts: sum(counts) > 0)


@given(COUNTS, st.floats(0, 0.45), st.floats(0, 0.45), st.integers(-(2**70), 2**70), st.randoms())
def test_splits(counts, first, second, seed, random):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    random.shuffle(labels)
    wanted = (int(len(labels) * first), int(len(labels) * second))
    parts = stratified(labels, wanted, seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all((np.diff(part) > 0).all() for part in parts)
    present = np.bincount(labels, minlength=len(counts)) > 0
    kept = np.bincount(labels[parts[0]], minlength=len(counts))
    assert (kept[present] >= 1).all()
    for part, number in zip(parts[1:], wanted, strict=True):
        assert len(part) <= number
    again = stratified(labels, wanted, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(COUNTS, st.floats(0, 0.9))
def test_quotas_are_within_one_of_their_share(counts, fraction):
    sizes = np.array(counts)
    wanted = int(sizes.sum() * fraction)
    free = quotas(sizes, wanted, sizes)
    assert free.sum() == wanted and (np.abs(free - sizes * wanted / sizes.sum()) < 1).all()
    room = np.maximum(sizes - 1, 0)
    capped = quotas(sizes, wanted, room)
    assert (capped <= room).all() and capped.sum() == min(wanted, room.sum())


def test_single_images_stay_in_train_and_the_seed_decides():
    labels = np.array([0] * 50 + [1] * 50 + [2], np.int32)
    train, val = stratified(labels, (20,), 0)
    assert 100 in train and np.bincount(labels[val]).tolist() == [10, 10]
    other = stratified(labels, (20,), 1)[1]
    assert not np.array_equal(val, other)


def test_the_choice_never_changes():
    """A split is part of a run's meaning: these numbers must stay (first taken from this code)."""
    labels = np.arange(40, dtype=np.int32) % 4
    assert stratified(labels, (4, 4), 0)[1].tolist() == GOLDEN[0]
    assert stratified(labels, (4, 4), 7)[2].tolist() == GOLDEN[1]


GOLDEN = ([4, 29, 31, 38], [0, 5, 26, 31])


def test_keys_are_a_fair_shuffle():
    keys = shuffle_keys(100_000, 5)
    assert len(np.unique(keys)) == 100_000
    assert np.abs(np.corrcoef(np.arange(100_000), keys.astype(float))[0, 1]) < 0.02
    assert shuffle_keys(9, 0).tolist() == shuffle_keys(99, 0)[:9].tolist()


@pytest.mark.parametrize(
    ("total", "fraction", "expected"),
    [(60_000, None, 5000), (1797, None, 180), (4, None, 1), (100, 0.25, 25), (100, 0, 0)],
)
def test_wanted_count(total, fraction, expected):
    assert wanted_count(total, fraction, "val_fraction") == expected


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_one_changed_bit_changes_the_hash(width, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (1, 1, 1, width), dtype=np.uint8)
    changed = image.copy()
    changed[0, 0, 0, rng.integers(width)] ^= 1 << rng.integers(8)
    assert image_hashes(image) != image_hashes(changed)
    assert image_hashes(image) == image_hashes(image.copy())


def test_bit_pictures_do_not_collide():
    """Pictures of 0 and 255 only, differing in a few pixels: weak sums would merge them."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, (1, 784), dtype=np.uint8) * 255
    many = np.repeat(base, 20_000, axis=0)
    for row in many[1:]:
        row[rng.choice(784, 2, replace=False)] ^= 255
    different = len(np.unique(many, axis=0))
    assert len(np.unique(image_hashes(many.reshape(-1, 1, 28, 28)))) == different


def as_split(images: np.ndarray) -> Split:
    return Split(images, np.zeros(len(images), np.int32), Numbered("x", range(len(images))))


@given(st.integers(0, 2**32))
def test_duplicates_are_counted_exactly(seed):
    rng = np.random.default_rng(seed)
    train = rng.integers(0, 2, (30, 1, 2, 3), dtype=np.uint8)
    other = rng.integers(0, 2, (20, 1, 2, 3), dtype=np.uint8)
    known = {image.tobytes() for image in train}
    expected = sum(image.tobytes() in known for image in other)
    found = count_duplicates(
        as_split(train), image_hashes(train), as_split(other), image_hashes(other)
    )
    assert found == expected


def test_equal_hashes_alone_are_not_duplicates():
    images = np.zeros((3, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0] = [1, 2, 3]
    same = np.zeros(3, np.uint64)
    assert count_duplicates(as_split(images), same, as_split(images[1:] + 10), same[:2]) == 0


@given(st.integers(1, 600), st.integers(1, 3), st.integers(1, 30), st.integers(0, 2**32))
def test_moments_are_exact(count, channels, side, seed):
    images = np.random.default_rng(seed).integers(
        0, 256, (count, channels, side, 1), dtype=np.uint8
    )
    mean, std = channel_moments(images)
    pixels = images.astype(np.float64) / 255
    assert np.allclose(mean, pixels.mean((0, 2, 3)), atol=1e-6)
    expected = pixels.std((0, 2, 3))
    assert np.allclose(std, np.where(expected < 5e-7, 1.0, expected), atol=1e-6)


def test_numbered_names_are_made_when_asked_for():
    names = Numbered("train-images", np.array([4, 9, 17]))
    assert len(names) == 3 and list(names)[-1] == "train-images#17"
    assert list(names[1:]) == ["train-images#9", "train-images#17"]
