"""The largest batch is found in few trials, for any memory and any prediction."""

import math

import jax
import pytest

from yolox_jax.tools.selfcheck.memory import is_out_of_memory, largest_batch


def _search(capacity, first, most, predicted):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= capacity

    return largest_batch(fits, first, most, lambda: predicted), tried


@pytest.mark.parametrize("first", [1, 8, 64])
def test_the_search_finds_the_largest_power_of_two_that_fits(first):
    for capacity in range(200):
        largest = 0 if capacity == 0 else 2 ** int(math.log2(capacity))
        found, tried = _search(capacity, first, 512, predicted=capacity)
        assert found == largest, capacity
        assert len(set(tried)) == len(tried), "a batch is compiled once"
        if capacity >= first:
            assert len(tried) <= 3  # the first, the predicted and the next one


def test_a_wrong_prediction_costs_trials_and_is_right_within_a_factor_of_two():
    assert _search(capacity=40, first=8, most=512, predicted=512)[0] == 32
    assert _search(capacity=40, first=8, most=512, predicted=5)[0] == 16  # twice the prediction is the most it tries
    assert _search(capacity=1000, first=8, most=64, predicted=1e9)[0] == 64


def test_only_a_full_memory_is_out_of_memory():
    assert is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory while allocating"))
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: a bug"))
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))
