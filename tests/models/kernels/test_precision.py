"""The compute dtype that each device is built for, by what jax reports of it."""

import types

import jax
import jax.numpy as jnp
import pytest

from yolox_jax.models.kernels import precision

_FLOAT16, _BFLOAT16, _FLOAT32 = jnp.float16, jnp.bfloat16, jnp.float32


@pytest.mark.parametrize(
    ("platform", "compute_capability", "device_kind", "dtype"),
    [
        ("cpu", "", "cpu", _FLOAT32),
        ("tpu", "", "TPU v5 lite", _BFLOAT16),
        ("gpu", "6.0", "Tesla P100-PCIE-16GB", _FLOAT32),
        ("gpu", "6.1", "NVIDIA GeForce GTX 1080 Ti", _FLOAT32),
        ("gpu", "7.0", "Tesla V100-SXM2-16GB", _FLOAT16),
        ("gpu", "7.5", "Tesla T4", _FLOAT16),
        ("gpu", "7.5", "NVIDIA GeForce RTX 2080 Ti", _FLOAT16),
        ("gpu", "7.5", "Quadro RTX 4000", _FLOAT16),
        # Turing without tensor cores
        ("gpu", "7.5", "NVIDIA GeForce GTX 1660 SUPER", _FLOAT32),
        ("gpu", "7.5", "Quadro T1000 with Max-Q Design", _FLOAT32),
        ("gpu", "7.5", "NVIDIA T400 4GB", _FLOAT32),
        ("gpu", "7.5", "NVIDIA GeForce MX450", _FLOAT32),
        ("gpu", "8.0", "NVIDIA A100-SXM4-40GB", _BFLOAT16),
        ("gpu", "8.6", "NVIDIA GeForce RTX 3060", _BFLOAT16),
        ("gpu", "8.9", "NVIDIA L4", _BFLOAT16),
        ("gpu", "9.0", "NVIDIA H100 80GB HBM3", _BFLOAT16),
        ("gpu", "10.0", "NVIDIA B200", _BFLOAT16),
        ("gpu", "12.0", "NVIDIA GeForce RTX 5090", _BFLOAT16),
        # AMD
        ("gpu", "gfx906", "AMD Instinct MI60", _FLOAT32),
        ("gpu", "gfx908", "AMD Instinct MI100", _FLOAT32),
        ("gpu", "gfx90a", "AMD Instinct MI250X", _BFLOAT16),
        ("gpu", "gfx90a:sramecc+:xnack-", "AMD Instinct MI250X", _BFLOAT16),
        ("gpu", "gfx90c", "AMD Radeon Graphics", _FLOAT32),
        ("gpu", "gfx942", "AMD Instinct MI300X", _BFLOAT16),
        ("gpu", "gfx1030", "AMD Radeon RX 6800", _FLOAT32),
        ("gpu", "gfx1100", "AMD Radeon RX 7900 XTX", _BFLOAT16),
        # Unknown
        ("gpu", "", "", _FLOAT32),
        ("METAL", "", "Metal", _FLOAT32),
    ],
)
def test_each_device_has_the_dtype_that_it_multiplies_fast(platform, compute_capability, device_kind, dtype):
    assert precision.native_dtype(platform, compute_capability, device_kind) == dtype


def test_the_first_device_is_asked(monkeypatch):
    t4 = types.SimpleNamespace(platform="gpu", compute_capability="7.5", device_kind="Tesla T4")
    monkeypatch.setattr(jax, "devices", lambda: [t4])
    assert precision.native_dtype_here() == _FLOAT16
    monkeypatch.undo()
    assert precision.native_dtype_here() == _FLOAT32  # a CPU has no compute capability
