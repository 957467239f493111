"""Which options each platform gets, that XLA takes them, and that they and its flags stand in two files."""

import re

import jax
import jax.numpy as jnp
import pytest

from tests.material import ROOT
from yolox_jax import compiler_options

_PROGRAMS = {
    "step": compiler_options.for_training_step,
    "repeatable": compiler_options.repeatable,
    "one call": compiler_options.for_one_call,
}
_WITH_OPTIONS = {("step", "cpu"), ("one call", "cpu"), ("step", "gpu"), ("repeatable", "gpu")}
_PAIRS = [(program, platform) for program in _PROGRAMS for platform in ("cpu", "gpu", "tpu")]


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


def test_only_two_files_name_flags_and_options_of_xla():
    files = [
        path for folder in ("yolox_jax", "configs", "benchmarks", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    files += [ROOT / "train.py", ROOT / "eval.py", ROOT / "notebooks" / "quickstart.ipynb"]
    flag = r"[\"-]xla_(?!ffi_)[a-z_]+"  # xla_ffi_… are functions
    naming = {path.name for path in files if re.search(flag, path.read_text())}
    assert naming == {"compiler_options.py", "programs.py"}
