"""The compute dtype that a device is built for."""

import re

import jax
import jax.numpy as jnp

_TENSOR_CORES = (7, 0)  # NVIDIA's compute capability from which on a card multiplies float16 matrices; Volta
_BFLOAT16_CORES = (8, 0)  # and bfloat16 ones; Ampere
# Turing without tensor cores, also of compute capability 7.5. Convolutions in float16 give NaN on some of them
# (github.com/pytorch/pytorch/issues/77955).
_WITHOUT_TENSOR_CORES = re.compile(r"\bGTX 16\d\d|\bT(400|500|550|600|1000|1200|2000)\b|\bMX[45]50\b")
# AMD's architectures with bfloat16 matrix instructions: CDNA 2 to 4 (MI200 to MI350), RDNA 3 and 4.
_AMD_WITH_BFLOAT16 = re.compile(r"gfx(90a|9[45].|1[12]..)\b")


def native_dtype(platform: str, compute_capability: str = "", device_kind: str = "") -> jnp.dtype:
    """bfloat16 if the device multiplies matrices in it, otherwise float16 if it does so in that, otherwise float32.

    Args:
      platform: "cpu", "gpu" or "tpu", as a jax.Device has it.
      compute_capability: of a GPU, such as "7.5", or "gfx942" of AMD's.
      device_kind: the card's name, since a compute capability can have cards without tensor cores.
    """
    if platform == "tpu":
        return jnp.dtype(jnp.bfloat16)
    if platform == "gpu" and _AMD_WITH_BFLOAT16.match(compute_capability):
        return jnp.dtype(jnp.bfloat16)
    number = re.match(r"(\d+)\.(\d+)", compute_capability) if platform == "gpu" else None
    if number is None or _WITHOUT_TENSOR_CORES.search(device_kind):
        return jnp.dtype(jnp.float32)
    version = int(number[1]), int(number[2])
    if version >= _BFLOAT16_CORES:
        return jnp.dtype(jnp.bfloat16)
    return jnp.dtype(jnp.float16 if version >= _TENSOR_CORES else jnp.float32)


def native_dtype_here() -> jnp.dtype:
    """The native dtype of the first device of all processes, so that they agree."""
    device = jax.devices()[0]
    return native_dtype(device.platform, getattr(device, "compute_capability", ""), device.device_kind)
