"""What eight devices tell each other in a step, read from the compiled program."""

import functools

import jax
import pytest

from tests.training import toy
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.tools.plan.collectives import find_collectives
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.training import parallel
from yolox_jax.training.step import StepConfig, train_step

_NUM_POSITIVES = 4  # bytes: the one number that the loss itself is divided by


@pytest.fixture(scope="module")
def collectives():
    mesh = make_mesh(8)
    step = parallel.map_step(
        functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=StepConfig(toy.SCHEDULE)), mesh
    )
    arguments = place(toy.create_state(), mesh), shard_batch(toy.random_batch(0), mesh)
    return find_collectives(parse(step.lower(*arguments).compile().as_text()), num_chips=8)


def test_a_step_has_one_all_reduce_of_one_number_and_one_of_all_the_rest(collectives):
    assert [each.kind for each in collectives] == ["all-reduce", "all-reduce"]
    assert [each.group_size for each in collectives] == [8, 8]
    assert collectives[0].num_bytes == _NUM_POSITIVES


def test_what_is_summed_is_gradients_and_statistics_once_and_a_few_numbers(collectives):
    state = toy.create_state()
    gradients_and_statistics = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    numbers = collectives[1].num_bytes - gradients_and_statistics
    assert 0 < numbers <= 32
