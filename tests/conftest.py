"""Set-up of all tests: strict numerics, eight simulated devices and one compilation cache."""

import os
from pathlib import Path

import jax
import pytest

from tests import programs
from tests.browser import browser  # noqa: F401  # a fixture
from tests.material import ROOT
from tests.storage_servers import bucket, gs_bucket, gs_server, s3_bucket, s3_server  # noqa: F401  # fixtures

# XLA reads them when the first array is made, the caller's last: .ci/run also tests at the level that train.py takes.
os.environ["XLA_FLAGS"] = f"{programs.xla_flags(num_devices=8)} {os.environ.get('XLA_FLAGS', '')}"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "float32")
jax.config.update("jax_compilation_cache_dir", os.environ.get("YOLOX_JAX_TEST_CACHE", str(ROOT / ".jax_cache")))


# One process runs all tests of a file. These take minutes: begun last, one of them would leave the other cores idle.
_LONGEST = ("test_programs.py", "test_hosts.py", "test_selfcheck.py", "test_network.py", "test_crash.py")


def pytest_collection_modifyitems(items):
    """Runs the longest files first, then the others that start whole programs."""
    here, ranks = Path(__file__).parent, {name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: (ranks.get(item.path.name, len(ranks)), item.path.parent != here))


@pytest.fixture(autouse=True)
def _no_program_is_left():
    yield
    programs.kill_all()
