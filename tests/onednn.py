"""Marks the tests that compile with oneDNN."""

import pytest

from yolox_jax.compiler_options import choose_cpu_kernels

HAS_ONEDNN = choose_cpu_kernels("auto", "cpu", num_calls=1_000_000) == "onednn"
needs_onednn = pytest.mark.skipif(
    not HAS_ONEDNN, reason="jaxlib 0.11 and 0.12 have oneDNN's convolutions, in their wheels for Linux on x86-64"
)
