"""Images are resized to fit the input, and the most recently used ones are cached."""

import logging

import numpy as np
import pytest

from tests.data.made_source import CountingSource, MadeSource
from tests.recipe import loader_config, read_config
from yolox_jax.augment import geometry
from yolox_jax.data.train_loader import TrainLoader
from yolox_jax.data.views.cache import CachedSource, FittedSource


def counting_source(length):
    return CountingSource(np.zeros((10, 10, 3), np.uint8), [], length)


def test_the_least_recently_used_image_is_evicted():
    counting = counting_source(5)
    source = CachedSource(counting, max_bytes=3 * 300)
    for index in (0, 1, 2, 0, 3, 0, 1, 3):
        assert source[index].image_id == f"image {index}"
    assert counting.read == [0, 1, 2, 3, 1]


def test_an_image_larger_than_the_cache_is_read_each_time():
    counting = counting_source(1)
    source = CachedSource(counting, max_bytes=299)
    assert source[0].image_id == source[0].image_id
    assert counting.read == [0, 0]


def test_a_cached_image_is_read_only():
    image = CachedSource(counting_source(1), max_bytes=1000)[0].image
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 1


@pytest.mark.parametrize(
    ("image_hw", "size_hw"), [((480, 640), (416, 416)), ((60, 50), (96, 64)), ((300, 31), (64, 64))]
)
def test_an_image_is_fitted_with_its_boxes(image_hw, size_hw):
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3)).astype(np.uint8)
    example = FittedSource(MadeSource(image, [[1, 2, 20, 30]]), size_hw)[0]
    ratio = geometry.fit_ratio(image_hw, size_hw)
    np.testing.assert_allclose(example.boxes_xyxy, np.array([[1, 2, 20, 30]]) * ratio, rtol=1e-6)
    np.testing.assert_array_equal(example.image, geometry.fit(image, size_hw))


def test_if_rounding_leaves_an_image_a_pixel_short_it_is_fitted_again_as_in_the_reference():
    source = MadeSource(np.zeros((480, 720, 3), np.uint8), [[0, 0, 720, 480]])
    assert geometry.fit(source.image, (416, 416)).shape == (277, 415, 3)
    example = FittedSource(source, (416, 416))[0]
    assert example.image.shape == (277, 416, 3)
    np.testing.assert_allclose(example.boxes_xyxy, [[0, 0, 416 * 416 / 415, 416 / 720 * 480 * 416 / 415]], rtol=1e-6)


def test_a_cache_too_small_for_the_window_causes_a_warning(caplog):
    config = loader_config(size_hw=(640, 640), global_batch=64, seed=0, mosaic_window=256)
    source = MadeSource(np.zeros((10, 10, 3), np.uint8), [], length=10_000)
    for megabytes, expected in ((400, 0), (300, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            TrainLoader(source, config, 1, read=read_config(cache_bytes=megabytes << 20))
        assert len(caplog.records) == expected
    assert "config.data.cache_mb is 300, but the mosaic's window needs 375" in caplog.text
