"""The collectives of one step on eight devices, read from the compiled program."""

import functools

import jax
import pytest

from tests.training import toy
from yolox_jax.mesh import make_mesh, place, shard_batch
from yolox_jax.tools.plan.collectives import find_collectives
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.training import parallel, zero
from yolox_jax.training.step import train_step

_A_FEW_NUMBERS = 32  # bytes: four loss terms, num_fg, num_gt, and with sharded state the norm


def _collectives(**changes):
    mesh = make_mesh(8)
    config = toy.step_config(**changes)
    step = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config)
    state = toy.create_state()
    specs = parallel.state_specs(state, mesh, config.shard_state)
    arguments = place(state, mesh, specs), shard_batch(toy.random_batch(0), mesh)
    lowered = parallel.map_step(step, mesh, state_specs=specs).lower(*arguments)
    return find_collectives(parse(lowered.compile().as_text()), num_chips=8)


@pytest.mark.parametrize("accumulate_steps", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_step_has_one_all_reduce_of_gradients_statistics_and_a_few_numbers(accumulate_steps):
    collectives = _collectives(accumulate_steps=accumulate_steps)
    assert [(each.kind, each.group_size) for each in collectives] == [("all-reduce", 8)]
    state = toy.create_state()
    gradients_and_statistics = sum(leaf.nbytes for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    numbers = collectives[0].num_bytes - gradients_and_statistics
    assert 0 < numbers <= _A_FEW_NUMBERS


def test_with_sharded_state_gradients_are_reduce_scattered_and_only_the_rest_is_all_reduced():
    collectives = _collectives(shard_state=True)
    state = toy.create_state()
    cut, uncut = [], []
    for leaf in jax.tree.leaves(state.params):
        (uncut if zero.axis_of(leaf.shape, 8) is None else cut).append(leaf)
    of_kind = {kind: [each for each in collectives if each.kind == kind] for kind in {c.kind for c in collectives}}
    assert of_kind.keys() == {"reduce-scatter", "all-reduce", "all-gather"}
    assert sum(each.num_bytes for each in of_kind["reduce-scatter"]) == sum(leaf.nbytes for leaf in cut) // 8
    assert sum(each.num_bytes for each in of_kind["all-gather"]) == sum(leaf.nbytes for leaf in cut)
    # XLA combines the sum of all else with that of the squares for the gradients' norm.
    (all_reduce,) = of_kind["all-reduce"]
    whole = sum(leaf.nbytes for leaf in [*uncut, *jax.tree.leaves(state.batch_stats)])
    assert 0 < all_reduce.num_bytes - whole <= _A_FEW_NUMBERS
