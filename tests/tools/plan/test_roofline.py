"""The arithmetic of a plan: chips, rooflines and the search for the largest batch."""

import pytest

from yolox_jax.errors import UserError
from yolox_jax.tools.plan.chips import CHIPS, Chip, parse_topology
from yolox_jax.tools.plan.planner import largest_batch, largest_fit
from yolox_jax.tools.plan.roofline import Work, roofline

_CHIP = Chip(100.0, 1e9, 10.0, 1.0, 2, ())


@pytest.mark.parametrize(
    ("work", "seconds", "bound_by"),
    [
        (Work(flops=800.0, hbm_bytes=70.0, sent_bytes=6.0, num_images=4), 8.0, "matrix units"),
        (Work(flops=600.0, hbm_bytes=80.0, sent_bytes=7.0, num_images=4), 8.0, "HBM bandwidth"),
        (Work(flops=700.0, hbm_bytes=60.0, sent_bytes=8.0, num_images=4), 8.0, "interconnect"),
    ],
)
def test_the_slowest_resource_bounds_the_time(work, seconds, bound_by):
    times = roofline(work, _CHIP)
    assert times.seconds == seconds
    assert times.bound_by == bound_by
    assert times.images_per_s == 4 / seconds


def test_a_training_step_of_s_is_bound_by_memory_bandwidth():
    """1.293 TFLOP at 197 TFLOP/s take 6.6 ms, 37.9 GB at 819 GB/s take 46.3 ms."""
    times = roofline(Work(1.293e12, 37.9e9, 0.0, 16), CHIPS["v5e"])
    assert times.bound_by == "HBM bandwidth"
    assert (times.compute_s, times.memory_s) == pytest.approx((0.00656, 0.0463), rel=2e-3)


@pytest.mark.parametrize("name", [name for chip in CHIPS.values() for name in chip.examples])
def test_the_example_topologies_are_parsed(name):
    topology = parse_topology(name)
    assert topology.name == name
    assert 1 <= topology.num_chips <= 256
    assert topology.num_devices == topology.num_chips * (2 if name.startswith("tpu7x") else 1)


@pytest.mark.parametrize("name", ["v5e", "v5e:8", "v5e:2x4x1", "v4:2x2", "v9:2x4", "v5e:0x4", "v5e:2x-4", "H100"])
def test_the_error_for_an_unknown_topology_lists_the_known_ones(name):
    with pytest.raises(UserError, match=rf"no topology '{name}'.*v4:XxYxZ such as .*v5e:XxY such .*v5p:.*v6e:.*tpu7x"):
        parse_topology(name)


def test_a_topology_of_too_many_chips_is_an_error():
    with pytest.raises(UserError, match="v5e:16x32 has 512 chips: give one of at most 256"):
        parse_topology("v5e:16x32")


@pytest.mark.parametrize("start", [1, 16, 40, 1000])
@pytest.mark.parametrize("largest", [0, 1, 5, 16, 31, 32, 33, 100])
def test_the_largest_fit_is_found_from_any_start_without_repeating_a_trial(largest, start):
    trials = []

    def fits(n: int) -> bool:
        trials.append(n)
        return n <= largest

    assert largest_fit(fits, start, limit=100) == largest
    assert len(set(trials)) == len(trials) <= 12
    assert all(1 <= trial <= 100 for trial in trials)


_BATCHES = [1, 2, 4, *range(8, 4097, 8)]


@pytest.mark.parametrize("start", [1, 8, 64, 5000])
@pytest.mark.parametrize("largest", [0, 1, 2, 4, 8, 40, 392, 4096])
@pytest.mark.parametrize("power", [1.0, 0.8, 1.2])
def test_the_largest_batch_is_found_in_few_compilations(largest, start, power):
    """Memory is a constant and a share for each image, or a little more or less with each image."""
    trials = []

    def peak_of(batch: int) -> float:
        trials.append(batch)
        return 3 + batch**power

    assert largest_batch(peak_of, _BATCHES, 3 + (largest + 0.9) ** power, start) == largest
    assert len(set(trials)) == len(trials) <= (6 if power == 1 else 12)


def test_a_search_for_the_largest_batch_ends_where_memory_does_not_follow_a_line():
    peaks = {batch: 100.0 if batch > 24 else 10.0 for batch in _BATCHES}
    assert largest_batch(peaks.__getitem__, _BATCHES, 50, 8) == 24
