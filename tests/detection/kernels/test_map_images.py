"""Images one at a time and several at a time give the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.detection.kernels.map_images import map_images


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
