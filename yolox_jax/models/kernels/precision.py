"""The compute dtype that the hardware is built for."""

import jax
import jax.numpy as jnp


def native_dtype() -> jnp.dtype:
    """bfloat16 on TPUs and GPUs, float32 on a CPU, which would emulate it."""
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
