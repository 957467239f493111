"""What all tests share: strict numerics, eight simulated devices and one compilation cache."""

import os
from pathlib import Path

# A device may wait long for the others on a machine that is busy with other things.
_FLAGS = " --xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + _FLAGS

import jax
import pytest

from tests import programs
from tests.material import ROOT

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_compilation_cache_dir", os.environ.get("YOLOX_JAX_TEST_CACHE", str(ROOT / ".jax_cache")))


def pytest_collection_modifyitems(items):
    """Puts the files that start whole programs first: they take longest, and a core must not be left with one of them."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.parent != here)


@pytest.fixture(autouse=True)
def _no_program_is_left():
    yield
    programs.kill_all()
