"""Set-up of all tests: strict numerics, eight simulated devices and one compilation cache."""

import os
from pathlib import Path

# On a busy machine, a device may have to wait a long time for the others.
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
    """Runs the files that start whole programs first: they take longest, and run last they would leave a core idle."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.parent != here)


@pytest.fixture(autouse=True)
def _no_program_is_left():
    yield
    programs.kill_all()
