"""Compiler options are for a CPU alone, and XLA takes them; they and the flags of XLA stand in two files."""

import re

import jax
import jax.numpy as jnp
import pytest

from tests.material import ROOT
from yolox_jax import compiler_options

_KINDS = [compiler_options.for_training_step, compiler_options.for_one_call]


@pytest.mark.parametrize("options", _KINDS)
def test_only_a_cpu_has_options_and_a_program_compiles_with_them(options):
    assert options("tpu") == options("gpu") == {}
    assert options("cpu")
    doubled = jax.jit(lambda x: x + x).lower(jnp.ones(3)).compile(compiler_options=options("cpu"))
    assert doubled(jnp.ones(3)).tolist() == [2, 2, 2]


def test_only_two_files_name_flags_and_options_of_xla():
    files = [
        path for folder in ("yolox_jax", "configs", "benchmarks", "tests") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    files += [ROOT / "train.py", ROOT / "eval.py", ROOT / "notebooks" / "quickstart.ipynb"]
    naming = {path.name for path in files if re.search(r"[\"-]xla_[a-z_]+", path.read_text())}
    assert naming == {"compiler_options.py", "programs.py"}
