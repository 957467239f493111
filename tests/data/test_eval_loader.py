"""Evaluation reads each image once, for any batch size and number of processes."""

import math

import numpy as np
import pytest

from tests.data.made_source import MadeSource, striped
from yolox_jax.data.eval_loader import eval_loader
from yolox_jax.data.images import ImageError
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.sources.shapes import ShapesSource
from yolox_jax.data.views.naming import SampleError

SIZE_HW = (48, 64)


@pytest.fixture(scope="module")
def source():
    return ShapesSource(10, seed=0, max_side=64)


def load(source, batch, **options):
    return eval_loader(source, size_hw=SIZE_HW, batch=batch, threads=2, prefetch=8, **options)


def test_evaluation_reads_each_image_once_in_order_with_its_ratio(source):
    batches = list(load(source, 5))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert all(batch.mask.all() for batch in batches)
    for index in (0, 9):
        batch, image = batches[index // 5], source[index].image
        assert batch.ratios[index % 5] == np.float32(min(48 / image.shape[0], 64 / image.shape[1]))


def test_the_last_evaluation_batch_is_padded_and_masked(source):
    *_, last = load(source, 4)
    assert last.mask.tolist() == [True, True, False, False]
    assert last.indices[:2].tolist() == [8, 9]
    assert last.images.shape == (4, 48, 64, 3)
    assert (last.images[2:] == 114).all()
    assert (last.images.dtype, last.ratios.dtype) == (np.uint8, np.float32)
    assert (last.ratios > 0).all()


@pytest.mark.parametrize("batch", [1, 2, 4, 7])
def test_three_processes_have_the_same_number_of_batches_and_each_image_once(source, batch):
    parts = [list(load(source, batch, shard=Shard(index, 3))) for index in range(3)]
    assert {len(part) for part in parts} == {math.ceil(10 / (3 * batch))}
    seen = [index for part in parts for loaded in part for index in loaded.indices[loaded.mask].tolist()]
    assert sorted(seen) == list(range(10))


def test_an_evaluation_loader_may_be_iterated_again(source):
    loader = load(source, 4)
    first, second = ([batch.indices.tolist() for batch in loader] for _ in range(2))
    assert first == second


def test_an_error_names_the_image():
    class Failing(MadeSource):
        def __getitem__(self, index):
            raise ImageError("0.jpg is odd", "replace it")

    with pytest.raises(SampleError, match=r"'image 0' \(index 0 of the source\): 0\.jpg is odd: replace it"):
        list(load(Failing(striped(), [], length=2), 2))
