"""Plans the INT8 form of a network on a few images: the range of each tensor, and the blocks that stay in float32.

A tensor's range is that of its values on the images. Some blocks lose more by 256 steps than others, above all the
first, whose channels have very different ranges. Each block is rounded alone to 8 bits (the weights of ONNX files have
7 in the end), and the raw outputs of the network are compared with those of float32: the blocks that change them most
stay in float32, until the rest together is within a bound. The prediction layers and decoding always stay.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from yolox_jax.inference.export.official_network import HeadLevel, OfficialNetwork

MOST_IMAGES = 100  # that a network is calibrated with

Range = tuple[float, float]

PIXELS: Range = (0.0, 255.0)
MOST_ERROR = 0.6  # root mean square over the raw outputs (logits, and boxes in strides) of the best anchors
_STEPS = 255
_NUM_BEST = 100  # anchors of an image
_NUM_COMPARED = 4  # images: each block costs a run of the network on each of them
# Where ranges of SiLU's inputs start at the lowest: below, SiLU is almost 0, and steps there would be missing above.
_SILU_START = -6.0
# A block of the network by the official name of one of its layers: dark2.1, C3_p4, head.cls_convs.0.
_BLOCK = re.compile(r"(?:backbone\.)*((?:head\.\w+|dark\d)\.\d+|\w+)")
_PREDICTION = "_preds."
_PATCHES = ".patches"  # the image, rearranged
_IMAGES = "images"


@dataclasses.dataclass(frozen=True)
class Int8Plan:
    """What a format needs to quantize a network."""

    ranges: dict[str, Range]  # of each layer's output, by its name; without that of the images, which is PIXELS
    float_blocks: tuple[str, ...]

    def is_int8(self, layer: str) -> bool:
        """Returns whether a layer, by its name, is computed in INT8."""
        return _may_be_int8(layer) and block_of(layer) not in self.float_blocks


def block_of(layer: str) -> str:
    """Returns the block of a layer, by their names."""
    match = _BLOCK.match(layer)
    assert match, layer
    return match[1]


def make_plan(
    state_dict: Mapping[str, np.ndarray], images_BHW3: np.ndarray, most_error: float = MOST_ERROR
) -> Int8Plan:
    """Plans on letterboxed images, uint8 BGR, for a network whose BatchNorm is folded.

    Costs one run of the network for each image, and about 30 for each of a few of them.
    """
    tensors = {name: jnp.asarray(array, jnp.float32) for name, array in state_dict.items()}

    @jax.jit
    def observe(image_1HW3: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        layers = _Layers(tensors)
        OfficialNetwork(layers, tensors).head_levels(_Value(_IMAGES, image_1HW3.astype(jnp.float32)))
        return layers.observed

    @jax.jit
    def raw_outputs(image_1HW3: jax.Array, ranges: dict[str, Range], rounded: dict[str, bool]) -> jax.Array:
        layers = _Layers(tensors, ranges, rounded)
        return _joined(OfficialNetwork(layers, tensors).head_levels(_Value(_IMAGES, image_1HW3.astype(jnp.float32))))

    observed = [jax.device_get(observe(image_HW3[None])) for image_HW3 in images_BHW3]
    lows, highs = ({name: [float(each[name][end]) for each in observed] for name in observed[0]} for end in (0, 1))
    ranges = {name: (min(0.0, *lows[name]), max(0.0, *highs[name])) for name in lows}
    blocks = list(dict.fromkeys(block_of(name) for name in ranges if _may_be_int8(name)))
    compared = images_BHW3[:: max(1, len(images_BHW3) // _NUM_COMPARED)][:_NUM_COMPARED]

    def outputs(in_int8: Collection[str]) -> np.ndarray:
        is_rounded = {block: block in in_int8 for block in blocks}
        return np.stack([raw_outputs(image_HW3[None], ranges, is_rounded) for image_HW3 in compared])

    wanted_BAR = outputs(())
    best_BN = np.argsort(-_scores(wanted_BAR), axis=1)[:, :_NUM_BEST, None]

    def error(in_int8: Collection[str]) -> float:
        differences_BAR = outputs(in_int8) - wanted_BAR
        return float(np.mean(np.take_along_axis(differences_BAR, best_BN, axis=1) ** 2)) ** 0.5

    return Int8Plan(ranges, choose_float_blocks(blocks, error, most_error))


def choose_float_blocks(
    blocks: Sequence[str], error: Callable[[Collection[str]], float], most_error: float
) -> tuple[str, ...]:
    """Returns the blocks to leave in float32: as many of those with the largest errors as the bound asks for.

    Args:
      blocks: all of them.
      error: of the network if these blocks are in INT8.
      most_error: its bound.
    """
    alone = {block: error([block]) for block in blocks}
    in_int8 = sorted(blocks, key=alone.__getitem__)
    while in_int8 and error(in_int8) > most_error:
        in_int8.pop()
    return tuple(block for block in blocks if block not in in_int8)


def rounded(values: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
    """Returns the values as the 256 steps of a range, which contains 0, stand for them."""
    scale = jnp.maximum((high - low) / _STEPS, 1e-12)
    zero = jnp.round(-low / scale)
    return (jnp.clip(jnp.round(values / scale) + zero, 0, _STEPS) - zero) * scale


def _may_be_int8(layer: str) -> bool:
    return _PREDICTION not in layer and not layer.endswith(_PATCHES)


def _scores(raw_BAR: np.ndarray) -> np.ndarray:
    """Returns the log of each anchor's score: of objectness times the probability of the best class."""
    return -np.logaddexp(0, -raw_BAR[..., 4]) - np.logaddexp(0, -raw_BAR[..., 5:].max(axis=-1))


class _Value(NamedTuple):
    name: str
    array_BHWC: jax.Array


def _joined(levels: list[HeadLevel[_Value]]) -> jax.Array:
    """Joins all levels of one image: [A, 5 + C]."""
    parts = [jnp.concatenate([each.array_BHWC for each in level], axis=-1) for level in levels]
    return jnp.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])


class _Layers:
    """The layers on arrays [B, H, W, C]; weights, inputs and outputs of the blocks in `is_rounded` are rounded."""

    def __init__(
        self,
        tensors: Mapping[str, jax.Array],
        ranges: Mapping[str, Range] | None = None,
        is_rounded: Mapping[str, bool] | None = None,
    ):
        self._tensors = tensors
        self._ranges = None if ranges is None else {_IMAGES: PIXELS, **ranges}
        self._is_rounded = is_rounded or {}
        self.observed: dict[str, tuple[jax.Array, jax.Array]] = {}  # extremes of each layer's output

    def conv(self, name: str, x: _Value, stride: int = 1) -> _Value:
        kernel_HWIO = self._tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
        if (is_rounded := self._is_rounded.get(block_of(name))) is not None:
            largest_O = jnp.abs(kernel_HWIO).max(axis=(0, 1, 2), keepdims=True)
            kernel_HWIO = jnp.where(is_rounded, rounded(kernel_HWIO, -largest_O, largest_O), kernel_HWIO)
        pad = kernel_HWIO.shape[0] // 2
        y = lax.conv_general_dilated(
            self._input(name, x),
            kernel_HWIO,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=kernel_HWIO.shape[3] if name.endswith(".dconv.conv") else 1,
        )
        return self._output(name, y + self._tensors[f"{name}.bias"][None, None, None])

    def focus_conv(self, name: str, images: _Value) -> _Value:
        patches = [images.array_BHWC[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(name, self._output(f"{name}{_PATCHES}", jnp.concatenate(patches, axis=-1)))

    def silu(self, name: str, x: _Value) -> _Value:
        low, high = self.observed[x.name]
        self.observed[x.name] = jnp.maximum(low, _SILU_START), high
        gate = self._output(f"{name}.gate", jax.nn.sigmoid(x.array_BHWC))
        return self._output(name, x.array_BHWC * gate.array_BHWC)

    def leaky_relu(self, name: str, x: _Value) -> _Value:
        return self._output(name, jnp.where(x.array_BHWC > 0, x.array_BHWC, 0.1 * x.array_BHWC))

    def add(self, name: str, x: _Value, y: _Value) -> _Value:
        return self._output(name, self._input(name, x) + self._input(name, y))

    def concatenate(self, name: str, *parts: _Value) -> _Value:
        return self._output(name, jnp.concatenate([each.array_BHWC for each in parts], axis=-1))

    def max_pool(self, name: str, x: _Value, size: int) -> _Value:
        window = (1, size, size, 1)
        return self._output(name, lax.reduce_window(x.array_BHWC, -jnp.inf, lax.max, window, (1, 1, 1, 1), "SAME"))

    def upsample(self, name: str, x: _Value) -> _Value:
        return self._output(name, jnp.repeat(jnp.repeat(x.array_BHWC, 2, axis=1), 2, axis=2))

    def _input(self, layer: str, x: _Value) -> jax.Array:
        return self._rounded(x.name, x.array_BHWC, block_of(layer))

    def _output(self, name: str, y: jax.Array) -> _Value:
        self.observed[name] = y.min(), y.max()
        return _Value(name, self._rounded(name, y, block_of(name)))

    def _rounded(self, tensor: str, array: jax.Array, block: str) -> jax.Array:
        is_rounded = self._is_rounded.get(block)
        if self._ranges is None or is_rounded is None:
            return array
        return jnp.where(is_rounded, rounded(array, *self._ranges[tensor]), array)
