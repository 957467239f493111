"""Images one at a time and several at a time give the same results; a CPU skips padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.detection.kernels.map_images import map_images, over_tiles


@pytest.mark.parametrize("num_images", [1, 8, 11])
def test_mapped_images_equal_a_loop(num_images):
    images = {"x": jnp.arange(num_images * 6.0).reshape(num_images, 3, 2), "y": jnp.arange(num_images)}

    def function(image):
        return {"sum": image["x"].sum(axis=0) + image["y"], "y": image["y"] + 1}

    loop = [function(jax.tree.map(lambda x, i=i: x[i], images)) for i in range(num_images)]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *loop)
    jax.tree.map(np.testing.assert_array_equal, map_images(function, images, 4), expected)
    # The form for other devices, which a CPU can run too.
    by_four = jax.lax.map(function, images, batch_size=4)
    jax.tree.map(np.testing.assert_array_equal, by_four, expected)


def test_over_tiles_applies_the_function_to_each_tile_and_on_a_cpu_to_no_padding():
    tiles = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    mask = np.array([True, True, False, True, False])
    seen = []

    def function(images):
        jax.debug.callback(lambda images: seen.append(images.shape[0]), images)
        return {"sum": images.sum(axis=(1, 2, 3)), "first": images[:, 0, 0]}

    found = jax.jit(lambda tiles, mask: over_tiles(function, tiles, mask))(tiles, mask)
    jax.effects_barrier()
    assert seen == [1, 1, 1]
    expected = function(jnp.asarray(tiles))
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one[mask], other[mask]), found, expected)
