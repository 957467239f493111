"""A mask computed from the leading items is that of all of them, and only one length of them is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolox_jax.detection.kernels.leading_part import of_leading_part

NUM = 1001
computed: list[int] = []  # lengths


def first_of_each_value(arrays):
    """True for the first valid item of each value."""
    value_N, valid_N = arrays
    jax.debug.callback(lambda: computed.append(len(value_N)))
    before_NN = jnp.triu(jnp.ones((len(value_N), len(value_N)), bool), k=1)
    same_NN = (value_N[:, None] == value_N[None, :]) & valid_N[:, None]
    return valid_N & ~(same_NN & before_NN).any(axis=0)


of_part = jax.jit(lambda arrays: of_leading_part(first_of_each_value, arrays, arrays[1]))


ENDS_AND_LENGTHS = [(0, 251), (1, 251), (251, 251), (252, 501), (501, 501), (502, NUM), (NUM, NUM)]


@pytest.mark.parametrize("end, length", ENDS_AND_LENGTHS)
def test_it_is_that_of_all_items_wherever_the_last_valid_one_lies(end, length):
    rng = np.random.default_rng(end)
    value_N, valid_N = rng.integers(0, 300, NUM), rng.random(NUM) < 0.7
    valid_N[max(end - 1, 0) :] = False
    valid_N[max(end - 1, 0)] = end > 0
    computed.clear()
    found = np.flatnonzero(of_part((value_N, valid_N)))
    jax.effects_barrier()
    assert computed == [length]
    valid = np.flatnonzero(valid_N)
    assert found.tolist() == sorted(valid[np.unique(value_N[valid], return_index=True)[1]])
