"""Set-up of all tests: strict numerics, eight simulated devices and one compilation cache."""

import os
from pathlib import Path

import jax
import pytest

from tests import programs
from tests.browser import browser  # noqa: F401  # a fixture
from tests.material import ROOT
from tests.storage_servers import gs_bucket, gs_server, s3_bucket, s3_server  # noqa: F401  # fixtures

# XLA reads them when the first array is made.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {programs.xla_flags(num_devices=8)}"
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
