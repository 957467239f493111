"""tools/plan: the programs that it lowers on simulated devices, its report, and libtpu's compiler if installed."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from tests.training import toy
from yolox_jax.errors import UserError
from yolox_jax.mesh import make_mesh
from yolox_jax.tools.plan import compiling, planner, programs
from yolox_jax.tools.plan.chips import CHIPS, parse_topology
from yolox_jax.tools.plan.compiling import Compiled, OutOfMemory
from yolox_jax.tools.plan.report import as_text, make_report

_TOPOLOGY = parse_topology("v5e:2x4")
_COMPILED = Compiled(
    text="""
ENTRY %main (x: f32[375000000]) -> f32[375000000] {
  %x = f32[375000000]{0} parameter(0)
  %sum = f32[375000000]{0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add
}
""",
    flops=197e9,  # 1 ms of v5e's 197 TFLOP/s
    bytes_accessed=5e9,
    argument_bytes=1000,
    temporary_bytes=2_000_000_000,
    code_bytes=7,
    peak_bytes=2_000_001_007,
)


@pytest.mark.parametrize("what", programs.PROGRAMS)
def test_a_program_is_lowered_from_shapes_and_all_its_arguments_are_counted(toy_network, toy_config, what):
    program = programs.PROGRAMS[what](toy_config, make_mesh(8), 2, "bfloat16")
    images = 2 * toy.SIZE * toy.SIZE * 3
    assert program.argument_bytes["batch"] >= images
    compiled = program.lowered.compile()
    counted = sum(program.argument_bytes.values())
    # The step counter belongs to none of the kinds, and the mask may be padded.
    assert compiled.memory_analysis().argument_size_in_bytes == pytest.approx(counted, abs=64)


@pytest.mark.slow
def test_a_sharded_state_takes_less_memory_on_each_chip(toy_network, toy_config):
    config, mesh = toy_config, make_mesh(8)
    whole = programs.train_program(config, mesh, 2, "bfloat16").argument_bytes
    config.parallel.shard_state = True
    program = programs.train_program(config, mesh, 2, "bfloat16")
    assert program.argument_bytes["parameters"] == whole["parameters"]
    for kind in ("optimiser", "EMA"):
        assert program.argument_bytes[kind] < 0.5 * whole[kind]
    counted = sum(program.argument_bytes.values())
    assert program.lowered.compile().memory_analysis().argument_size_in_bytes == pytest.approx(counted, abs=64)


def test_the_batch_has_the_shapes_and_types_of_a_training_batch(toy_network, toy_config, monkeypatch):
    """Otherwise the plan would describe another program than the one that training runs."""
    lowered = {}
    monkeypatch.setattr(programs.parallel, "map_step", lambda step, mesh, state_specs: _Recorder(lowered))
    programs.train_program(toy_config, make_mesh(8), 2, "bfloat16")
    state, batch = lowered["arguments"]
    expected = toy.random_batch(0).replace(
        hsv_shift=np.zeros((16, 3), np.float32), content_hw=np.zeros((16, 2), np.int32)
    )
    described = jax.tree.map(lambda x: (x.shape, str(x.dtype)), batch)
    assert described == jax.tree.map(lambda x: (x.shape, str(x.dtype)), expected)
    assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(lambda x: x.shape, toy.create_state())


class _Recorder:
    def __init__(self, record):
        self._record = record

    def lower(self, *arguments):
        self._record["arguments"] = arguments


def test_the_report_has_the_figures_of_one_chip():
    report = make_report(_COMPILED, _TOPOLOGY, 16, {"parameters": 300, "batch": 600}, "bfloat16")
    # 1.5 GB are read and written at 819 GB/s; in a ring of eight, each chip sends 7/4 of them at 200 GB/s.
    assert (report["hbm_bytes_per_step"], report["sent_bytes"]) == (3e9, 2.625e9)
    assert report["fits"] and report["bound_by"] == "interconnect"
    assert report["seconds"] == pytest.approx(2.625 / 200)
    assert report["seconds_by_part"]["HBM bandwidth"] == pytest.approx(3 / 819)
    assert report["images_per_s_per_chip"] == pytest.approx(16 / (2.625 / 200))
    assert report["images_per_s"] == pytest.approx(8 * 16 / (2.625 / 200))
    assert report["flops_per_image"] == 197e9 / 16
    assert (report["num_collectives"], report["collective_bytes"]) == (1, 1.5e9)
    assert report["memory_bytes"]["padding of these"] == 100
    text = as_text(report)
    assert "yes: 2.000 GB of 16.000 GB" in text and "13.1 ms, bound by interconnect" in text


def test_the_report_of_a_program_that_does_not_fit_has_the_memory_it_needs():
    report = make_report(OutOfMemory(20e9), _TOPOLOGY, 16, {"parameters": 300}, "bfloat16")
    assert not report["fits"]
    assert as_text(report) == "fits           no: needs 20.000 GB, a chip has 16.000 GB"


def test_auto_finds_the_largest_batch_that_fits(toy_config, monkeypatch, capsys):
    def compile_for_chip(batch_per_chip):
        needed = 1e9 + 0.4e9 * batch_per_chip
        return dataclasses.replace(_COMPILED, peak_bytes=int(needed)) if needed <= 16e9 else OutOfMemory(needed)

    program = programs.Program(lowered=None, argument_bytes={}, options={})
    monkeypatch.setitem(
        programs.PROGRAMS, "train", lambda config, mesh, batch, dtype: dataclasses.replace(program, lowered=batch)
    )
    monkeypatch.setattr(planner, "make_topology_mesh", lambda topology: None)
    monkeypatch.setattr(planner, "compile_for_chip", compile_for_chip)
    report = planner.plan_largest(toy_config, _TOPOLOGY, "train", 8, "bfloat16")
    assert report["batch_per_chip"] == 32 and report["fits"]
    assert "40 images per chip: 17.00 GB, does not fit" in capsys.readouterr().out


def test_without_libtpu_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install .*"jax\[tpu\]"'):
        compiling.make_topology_mesh(_TOPOLOGY)


@pytest.fixture
def libtpu():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip('needs libtpu: pip install "jax[tpu]"')


@pytest.mark.parametrize("name", [name for chip in CHIPS.values() for name in chip.examples])
def test_a_mesh_has_the_devices_of_its_chips(libtpu, name):
    topology = parse_topology(name)
    assert compiling.make_topology_mesh(topology).size == topology.num_devices


@pytest.mark.slow
def test_from_8_to_256_chips_the_work_of_a_chip_stays_and_it_sends_what_a_ring_needs(libtpu, toy_network, toy_config):
    reports = {}
    for name in ("v5e:2x4", "v5e:16x16"):
        reports[name] = report = planner.plan(toy_config, parse_topology(name), "train", 2, "bfloat16")
        print({field: report[field] for field in _PER_CHIP})
        assert report["fits"] and 0 < report["peak_bytes"] < 1e9
        assert report["collectives"] == "1 all-reduce"
        others, devices = report["num_devices"] - 1, report["num_devices"]
        assert report["sent_bytes"] == pytest.approx(2 * others / devices * report["collective_bytes"])
    few, many = reports.values()
    assert few["flops_per_step"] > 1e6 and few["hbm_bytes_per_step"] > 1e5
    for field in _PER_CHIP:
        assert many[field] == pytest.approx(few[field], rel=0.01), field


_PER_CHIP = ("flops_per_step", "hbm_bytes_per_step", "bytes_accessed_per_step", "collective_bytes", "peak_bytes")
