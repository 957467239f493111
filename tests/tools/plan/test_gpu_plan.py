"""Plans for cards: their names, the report with its warnings, and XLA's compiler for GPUs if installed."""

import importlib.util
import shutil

import jax
import pytest

from yolox_jax.errors import UserError
from yolox_jax.tools.plan import gpu_compiling, planner, table
from yolox_jax.tools.plan.cards import CARDS, Cards, target_config
from yolox_jax.tools.plan.compiling import Compiled, OutOfMemory
from yolox_jax.tools.plan.devices import native_dtype_of, parse_device
from yolox_jax.tools.plan.report import as_text, make_report


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("T4", "T4:1"),
        ("a100:8", "A100:8"),
        ("rtx4090", "RTX4090:1"),
        ("A100-80GB:2", "A100-80GB:2"),
        ("v5e", "v5e:1x1"),
        ("v5e:8", "v5e:2x4"),
        ("v6e:64", "v6e:8x8"),
        ("v4:4", "v4:2x2x1"),
        ("v5p:16", "v5p:2x2x4"),
        ("v7x:8", "tpu7x:2x2x2"),
        ("v4:2x2x4", "v4:2x2x4"),
    ],
)
def test_a_device_is_a_kind_and_a_number(name, parsed):
    assert parse_device(name).name == parsed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("P100", "P100 is not known: choose one of T4, L4, .*H100.*v5e.*with a number of them"),
        ("T4:", "T4: is not a number"),
        ("T4:0", "T4:0 is not a number of devices: give one from 1 to 256"),
        ("T4:2x2", "is not a number"),
        ("v5e:6", "no slice of 6 chips: give a power of two"),
        ("v5e:2x2x2", "no topology"),
        ("v5e:1024", "from 1 to 256"),
    ],
)
def test_an_unknown_device_is_one_message(name, message):
    with pytest.raises(UserError, match=message):
        parse_device(name)


@pytest.mark.parametrize(
    ("name", "dtype"), [("T4", "float16"), ("L4", "bfloat16"), ("H100", "bfloat16"), ("v4", "bfloat16")]
)
def test_auto_is_the_dtype_of_the_devices_not_of_this_machine(name, dtype):
    assert native_dtype_of(parse_device(name)) == dtype


def _compiled(text, **figures):
    defaults = {"flops": 65e9, "bytes_accessed": 0.0, "argument_bytes": 1000, "temporary_bytes": 2_000_000_000}
    return Compiled(text, **(defaults | {"code_bytes": 0, "peak_bytes": 2_000_001_000} | figures))


_CONVOLUTION = """
ENTRY %main (x: f32[8,64,80,80]) -> f32[8,64,80,80] {
  %x = f32[8,64,80,80]{3,2,1,0} parameter(0)
  %k = f32[64,64,3,3]{3,2,1,0} parameter(1)
  %c = (f32[8,64,80,80]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), dim_labels=bf01_oi01->bf01, \
custom_call_target="__cudnn$convForward"
  %y = f32[8,64,80,80]{3,2,1,0} get-tuple-element(%c), index=0
  ROOT %s = f32[8,64,80,80]{3,2,1,0} all-reduce(%y), replica_groups={{0,1}}, to_apply=%add
}
"""


def test_the_report_of_a_card_bounds_each_kernel_and_warns():
    report = make_report(_compiled(_CONVOLUTION, flops=2e9), Cards("T4", 2), 8, {"parameters": 300}, "bfloat16")
    size, flops = 4 * 8 * 64 * 80 * 80, 2 * 8 * 80 * 80 * 64 * 64 * 9
    assert report["num_kernels"] == 2 and report["hbm_bytes_per_step"] == 4 * size + 4 * 64 * 64 * 9
    parts = report["seconds_by_part"]
    assert parts["matrix units"] == pytest.approx(flops / 8.1e12)  # T4's float32
    assert parts["HBM bandwidth"] == pytest.approx(2 * size / 320e9)  # of the all-reduce
    assert parts["interconnect"] == pytest.approx(size / 16e9)  # a ring of two sends all of it, beside the kernels
    assert report["bound_by"] == "interconnect" and report["seconds"] == parts["interconnect"]
    assert report["images_per_s"] == pytest.approx(2 * 8 / report["seconds"])
    no_bfloat16, in_float32, nchw, more_work = report["warnings"]
    assert no_bfloat16 == "T4 has no bfloat16: give --dtype=float16"
    assert in_float32 == "1 of 1 convolutions are in float32; the card is built for float16"
    assert nchw.startswith("1 of 1 convolutions are NCHW")
    assert more_work == "the kernels do 4 GFLOP where 2 are asked for"
    text = as_text(report)
    assert "yes: 2.000 GB of 12.000 GB at the peak" in text and "1 float32 NCHW" in text
    assert "a card sends 13.107 MB" in text and "per card, " in text
    assert "warning        T4 has no bfloat16" in text and "workspace of cuDNN" in text


def test_a_program_of_the_cards_own_type_has_no_warnings():
    text = _CONVOLUTION.replace("f32", "f16").replace("{3,2,1,0}", "{1,3,2,0}")
    assert make_report(_compiled(text), Cards("T4", 2), 8, {}, "float16")["warnings"] == []


def test_a_program_beyond_the_share_of_jax_does_not_fit():
    report = make_report(_compiled(_CONVOLUTION, peak_bytes=12_500_000_000), Cards("T4", 1), 8, {}, "float32")
    assert not report["fits"]
    assert "no: 12.500 GB of 12.000 GB" in as_text(report)


def test_without_the_plugin_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(gpu_compiling, "_OLDEST_JAX", (0, 0, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'GPU compiler is not installed: pip install .*"jax\[cuda13-local\]" nvidia-'):
        gpu_compiling.make_cards_mesh(Cards("T4", 1))


def test_without_ptxas_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(gpu_compiling, "_OLDEST_JAX", (0, 0, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nvidia" else object())
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(UserError, match="ptxas and nvlink, which the GPU compiler calls, cannot be found: pip install"):
        gpu_compiling.make_cards_mesh(Cards("T4", 1))


def test_an_older_jax_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 9, 2))
    with pytest.raises(UserError, match="not compile for a GPU that is not there: install jax 0.10.2 or later"):
        gpu_compiling.make_cards_mesh(Cards("T4", 1))


def test_a_card_is_described_by_its_data_sheet():
    text = target_config(CARDS["H100"])
    assert "major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES" in text
    assert "shared_memory_per_core: 233472" in text and "shared_memory_per_block_optin: 232448" in text
    assert "device_memory_size: 80000000000" in text and "l2_cache_size: 52428800" in text
    assert "major: 7 minor: 5 feature_extension: NONE" in target_config(CARDS["T4"])


@pytest.fixture
def gpu_compiler():
    try:
        gpu_compiling.make_cards_mesh(Cards("T4", 1))
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", CARDS)
def test_a_mesh_has_the_cards(gpu_compiler, kind):
    mesh = gpu_compiling.make_cards_mesh(Cards(kind, 2))
    assert [device.device_kind for device in mesh.devices.flat] == 2 * [CARDS[kind].device_kind]


@pytest.mark.slow
def test_a_training_step_compiles_for_cards_that_are_not_there(gpu_compiler, toy_network, toy_config):
    report = planner.plan(toy_config, parse_device("A100:2"), "train", 2, "bfloat16")
    assert report["fits"] and report["num_kernels"] > 100
    assert report["flops_per_step"] == pytest.approx(report["flops_of_kernels"], rel=0.3)  # padding
    assert report["hbm_bytes_per_step"] > 1e5 and report["num_collectives"] >= 1
    assert "float32" in report["convolutions"]  # the type of the toy
    assert any("convolutions are in float32" in warning for warning in report["warnings"])
    assert 0 < report["memory_bytes"]["activations and temporaries"] < report["peak_bytes"] < 1e8


def test_a_row_of_a_table_has_the_figures_of_a_report():
    described = {"model": "s", "what": "train", "input_size": [640, 640], "dtype": "float16"}
    report = make_report(_compiled(_CONVOLUTION), Cards("T4", 2), 8, {}, "float16")
    cells = [cell.strip() for cell in table.row(described | report).strip("|").split("|")]
    assert cells[:6] == ["s at 640", "T4:2", "float16", "65 G", "0.1 GB", "2.00 GB"]
    assert cells[6:] == ["0.82 ms", "interconnect", "9766"]
    assert len(table.HEADER.splitlines()[0].split("|")) == len(cells) + 2
    too_large = make_report(OutOfMemory(20e9), parse_device("v5e"), 8, {}, "bfloat16")
    assert "| 20.00 GB, too much |" in table.row(described | too_large)


def test_the_models_of_a_table_have_configs():
    for model in table.parse_models(["all"]):
        assert table.config_of(model).model == model
    with pytest.raises(UserError, match="--table=big is not a model: choose among nano, tiny"):
        table.parse_models(["s", "big"])


def test_the_versions_of_the_compilers_are_named():
    assert f"jax {jax.__version__}" in table.versions()
