"""Counts the bytes that the first stages of YOLOX-s move on a TPU chip, forward and backward, in bfloat16:

python -m benchmarks.tpu_first_stages [--plain] [--size=640] [--batch=16]

The stages are the stem, the first stage and the convolution after it, on one v5e chip, in the space-to-depth form of
the network, or plain. Needs libtpu but no TPU; compiling takes minutes.
"""

import argparse
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import machine
from yolox_jax.models.blocks import BlockConfig, ConvBlock, CSPLayer, spatial_block
from yolox_jax.models.csp_darknet import Focus
from yolox_jax.models.kernels.space_to_depth import Layout
from yolox_jax.tools.plan.chips import parse_topology
from yolox_jax.tools.plan.compiling import OutOfMemory, compile_for_chip, make_topology_mesh
from yolox_jax.tools.plan.hlo import parse
from yolox_jax.tools.plan.traffic import hbm_bytes

_WIDTH = 32  # channels after the stem, of s


class FirstStages(nn.Module):
    """The first stages of CSPDarknet."""

    layout: Layout

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        config = BlockConfig(dtype=jnp.bfloat16, layout=self.layout)
        x = Focus(_WIDTH, config, name="stem")(images.astype(jnp.bfloat16), True)
        x = spatial_block(2 * _WIDTH, 2, config, name="down")(x, True)
        x = CSPLayer(2 * _WIDTH, 1, True, config, name="stage")(x, True)
        plain = BlockConfig(dtype=jnp.bfloat16)
        return ConvBlock(4 * _WIDTH, 3, 2, plain, in_layout=self.layout, name="next")(x, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", action="store_true", help="without space-to-depth")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    machine.describe()
    jax.config.update("jax_platforms", "cpu")

    network = FirstStages("plain" if arguments.plain else "space_to_depth")

    def gradients(variables: Any, images: jax.Array) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            changed = {"params": params, "batch_stats": variables["batch_stats"]}
            features, statistics = network.apply(changed, images, mutable=["batch_stats"])
            return jnp.square(features.astype(jnp.float32)).sum(), statistics

        return jax.grad(loss, has_aux=True)(variables["params"])

    on_chip = NamedSharding(make_topology_mesh(parse_topology("v5e:1x1")), P())

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_chip)

    images = placed(jax.ShapeDtypeStruct((arguments.batch, arguments.size, arguments.size, 3), jnp.float32))
    variables = jax.tree.map(placed, jax.eval_shape(network.init, jax.random.key(0), images))
    measured = compile_for_chip(jax.jit(gradients).lower(variables, images))
    if isinstance(measured, OutOfMemory):
        raise SystemExit(f"does not fit: needs {measured.needed_bytes / 1e9:.1f} GB")
    print(
        f"{network.layout}: {measured.flops / 1e9:.0f} GFLOP, "
        f"{measured.bytes_accessed / 1e9:.2f} GB by XLA's count, "
        f"{hbm_bytes(parse(measured.text)) / 1e9:.2f} GB in HBM, {measured.temporary_bytes / 1e9:.2f} GB of temporaries"
    )


if __name__ == "__main__":
    main()
