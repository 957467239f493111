"""Which options each platform gets, that XLA takes them, and that they and its flags stand in two files."""

import re

import jax
import jax.numpy as jnp
import pytest

from tests.material import ROOT
from tests.onednn import HAS_ONEDNN
from yolox_jax import compiler_options
from yolox_jax.errors import UserError

_PROGRAMS = {
    "step": compiler_options.for_training_step,
    "repeatable": compiler_options.repeatable,
}
_WITH_OPTIONS = {("step", "cpu"), ("step", "gpu"), ("repeatable", "gpu")}
_PAIRS = [(program, platform) for program in _PROGRAMS for platform in ("cpu", "gpu", "tpu")]


@pytest.fixture(autouse=True)
def _without_the_flags_of_the_tests(monkeypatch):
    """They name an option, which then is none of a program's."""
    jax.devices()  # XLA has read them now
    monkeypatch.delenv("XLA_FLAGS")


@pytest.mark.parametrize(("program", "platform"), _PAIRS)
def test_this_program_has_options_on_this_platform_or_none(program, platform):
    assert bool(_PROGRAMS[program](platform)) == ((program, platform) in _WITH_OPTIONS)


@pytest.mark.parametrize(("program", "platform"), sorted(_WITH_OPTIONS))
def test_this_jaxlib_knows_the_options(program, platform):
    """Those of a GPU too: any program may be compiled with them."""
    doubled = jax.jit(lambda x: x + x).lower(jnp.ones(3)).compile(compiler_options=_PROGRAMS[program](platform))
    assert doubled(jnp.ones(3)).tolist() == [2, 2, 2]


def test_a_training_step_is_repeatable_on_a_gpu():
    assert compiler_options.for_training_step("gpu") == compiler_options.repeatable("gpu")


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_what_the_flags_of_xla_say_about_a_step_stays(platform, monkeypatch):
    (name,) = compiler_options.for_training_step(platform)
    monkeypatch.setenv("XLA_FLAGS", f"--{name}=0")
    assert compiler_options.for_training_step(platform) == {}


_LONG = 1_000_000  # calls


@pytest.mark.parametrize(
    ("version", "system", "processor", "platform", "num_calls", "chosen"),
    [
        ((0, 10, 2), "linux", "x86_64", "cpu", _LONG, "xla"),
        ((0, 11, 0), "linux", "x86_64", "cpu", _LONG, "onednn"),
        ((0, 12, 0, 1), "linux", "x86_64", "cpu", _LONG, "onednn"),
        ((0, 12, 0, 1), "linux", "x86_64", "cpu", 100, "xla"),
        ((0, 12, 0, 1), "linux", "x86_64", "gpu", _LONG, "xla"),
        ((0, 12, 0, 1), "linux", "aarch64", "cpu", _LONG, "xla"),
        ((0, 12, 0, 1), "darwin", "x86_64", "cpu", _LONG, "xla"),
        ((0, 13, 0), "linux", "x86_64", "cpu", _LONG, "xla"),
    ],
)
def test_onednn_is_chosen_by_version_machine_platform_and_length(
    monkeypatch, version, system, processor, platform, num_calls, chosen
):
    monkeypatch.setattr(compiler_options.jaxlib.version, "__version_info__", version)
    monkeypatch.setattr(compiler_options.sys, "platform", system)
    monkeypatch.setattr(compiler_options.host, "machine", lambda: processor)
    assert compiler_options.choose_cpu_kernels("auto", platform, num_calls) == chosen
    assert compiler_options.choose_cpu_kernels("xla", platform, num_calls) == "xla"
    if platform != "cpu":
        assert compiler_options.choose_cpu_kernels("onednn", platform, num_calls) == "xla"
    elif (system, processor) == ("linux", "x86_64") and (0, 11) <= version < (0, 13):
        assert compiler_options.choose_cpu_kernels("onednn", platform, num_calls=1) == "onednn"
    else:
        with pytest.raises(UserError, match="cpu_kernels is 'onednn'"):
            compiler_options.choose_cpu_kernels("onednn", platform, num_calls)


def test_an_unknown_choice_of_kernels_is_refused():
    with pytest.raises(UserError, match="cpu_kernels is 'mkl': choose one of auto, onednn, xla"):
        compiler_options.choose_cpu_kernels("mkl", "cpu", 1)


def test_a_program_without_onednn_gets_none_of_its_options():
    """jaxlib before 0.11 would end the process at their names, or be slower with them."""
    assert compiler_options.for_cpu_kernels("xla") == {}
    assert len(compiler_options.for_cpu_kernels("onednn")) == (2 if HAS_ONEDNN else 0)
    assert compiler_options.for_training_step("gpu", "onednn") == compiler_options.for_training_step("gpu")
    assert compiler_options.for_detection("cpu", "onednn") == compiler_options.for_cpu_kernels("onednn")
    assert compiler_options.for_detection("cpu") == compiler_options.for_detection("tpu", "onednn") == {}
    assert compiler_options.for_detection("gpu", is_repeatable=True) == compiler_options.repeatable("gpu")


def test_only_two_files_name_flags_and_options_of_xla():
    files = [
        path for folder in ("yolox_jax", "configs", "benchmarks", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    files += [ROOT / "train.py", ROOT / "eval.py", ROOT / "notebooks" / "quickstart.ipynb"]
    flag = r"[\"-]xla_(?!ffi_)[a-z_]+"  # xla_ffi_… are functions
    naming = {path.name for path in files if re.search(flag, path.read_text())}
    assert naming == {"compiler_options.py", "programs.py"}
