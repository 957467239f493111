"""Several runs at once on groups of eight simulated devices: each is bit for bit the run alone."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.training import toy
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS, make_mesh, place, shard_batch
from yolox_jax.training import groups, parallel
from yolox_jax.training.step import train_step

_NUM_STEPS = 4


def _initial(seed):
    variables = jax.tree.map(lambda x: x * (1 + 0.1 * seed), toy.create_variables())
    return toy.state.create(variables, toy.OPTIMIZER)


def _each_alone(num_runs, config):
    mesh = make_mesh(8 // num_runs)
    step = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config)
    specs = parallel.state_specs(_initial(0), mesh, config.shard_state)
    program = parallel.map_step(step, mesh, state_specs=specs)
    for seed in range(num_runs):
        state, history = place(_initial(seed), mesh, specs), []
        for number in range(_NUM_STEPS):
            state, metrics = program(state, shard_batch(toy.random_batch(100 * seed + number), mesh))
            history.append(jax.device_get(metrics))
        yield jax.device_get(state), history


def _together(num_runs, config):
    mesh, of_runs = groups.meshes(num_runs)
    step = functools.partial(train_step, model=toy.MODEL, optimizer=toy.OPTIMIZER, config=config)
    specs = parallel.state_specs(_initial(0), of_runs[0], config.shard_state)
    program = groups.map_step(step, mesh, _initial(0), specs)
    states = groups.join([_initial(seed) for seed in range(num_runs)], mesh, specs)
    histories = [[] for _ in range(num_runs)]
    for number in range(_NUM_STEPS):
        batches = [toy.random_batch(100 * seed + number) for seed in range(num_runs)]
        states, metrics = program(states, groups.join(batches, mesh, P(AXIS)))
        for history, group in zip(histories, of_runs, strict=True):
            history.append(jax.device_get(groups.take(metrics, mesh, group)))
    return [groups.take(states, mesh, group) for group in of_runs], histories, program._cache_size()


@pytest.mark.parametrize(
    ("num_runs", "shard_state"),
    [(4, False), pytest.param(8, False, marks=pytest.mark.slow), pytest.param(2, True, marks=pytest.mark.slow)],
)
def test_each_run_is_bit_for_bit_the_run_alone_and_one_program_serves_all(num_runs, shard_state):
    config = toy.step_config(shard_state=shard_state)
    states, histories, num_programs = _together(num_runs, config)
    assert num_programs == 1
    alone = _each_alone(num_runs, config)
    for seed, (state, history, expected) in enumerate(zip(states, histories, alone, strict=True)):
        assert {device.id // (8 // num_runs) for leaf in jax.tree.leaves(state) for device in leaf.devices()} == {seed}
        jax.tree.map(np.testing.assert_array_equal, expected, (jax.device_get(state), history))
    assert len({history[-1]["loss"].item() for history in histories}) == num_runs


@pytest.mark.parametrize(
    ("num_runs", "message"),
    [
        (
            3,
            r"config.num_runs is 3, but 8 device\(s\) cannot be divided into as many equal groups: give a divisor of 8",
        ),
        (16, r"config.num_runs is 16, but 8 device\(s\) cannot be divided"),
        (0, "config.num_runs is 0: give 1 or more"),
    ],
)
def test_devices_that_cannot_be_divided_evenly_are_one_message(num_runs, message):
    with pytest.raises(UserError, match=message):
        groups.check_groups(num_runs, 8)
