"""Marks the tests that compile with oneDNN."""

import pytest

from yolox_jax.compiler_options import choose_cpu_kernels

HAS_ONEDNN = choose_cpu_kernels("auto", "cpu", num_calls=1_000_000) == "onednn"
needs_onednn = pytest.mark.skipif(
    not HAS_ONEDNN, reason="jaxlib has oneDNN's convolutions from 0.11 on, in its wheels for Linux on x86-64"
)
