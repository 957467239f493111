"""The networks by the names of the official tensors, for formats whose graphs are written layer by layer.

Blocks, depths and depthwise convolutions are inferred from the names. Only the connections between blocks and the
strides are written here; how a layer is written is the format's (`Layers`).
"""

from collections.abc import Container
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.models import yolox
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.weights.official import to_state_dict

Value = TypeVar("Value")  # what a format calls the output of a layer


class Layers(Protocol[Value]):
    """The layers of a format. Every output has a name; a convolution's is that of its kernel and bias."""

    def conv(self, name: str, x: Value, stride: int = 1) -> Value:
        """A convolution padded by kernel_size // 2 on every side, and its bias."""

    def focus_conv(self, name: str, images: Value) -> Value:
        """Space-to-depth, the four pixels of each 2×2 patch column by column, and a convolution of the result."""

    def silu(self, name: str, x: Value) -> Value: ...

    def leaky_relu(self, name: str, x: Value) -> Value: ...  # slope 0.1

    def add(self, name: str, x: Value, y: Value) -> Value: ...

    def concatenate(self, name: str, *parts: Value) -> Value:
        """Joins channels."""

    def max_pool(self, name: str, x: Value, size: int) -> Value:
        """A maximum at stride 1, of the same size."""

    def upsample(self, name: str, x: Value) -> Value:
        """Repeats each pixel 2×2 times."""


class HeadLevel(NamedTuple, Generic[Value]):
    """The raw output of the head at one stride: 4, 1 and C channels."""

    box: Value
    obj: Value
    cls: Value


def folded_tensors(loaded: Pretrained) -> dict[str, np.ndarray]:
    """Returns the official state dict of a network, float32, with BatchNorm folded into the convolutions."""
    model = yolox.create(loaded.name, len(loaded.class_names))  # whatever the compute dtype of loaded.model
    return to_state_dict(fold_batch_norm(model, loaded.variables), model)


class OfficialNetwork(Generic[Value]):
    """Builds a network from layers. `names` are those of the official state dict with BatchNorm folded."""

    def __init__(self, layers: Layers[Value], names: Container[str]):
        self._layers = layers
        self._names = names
        self._is_darknet53 = "backbone.out1_cbl.conv.weight" in names

    def head_levels(self, images: Value) -> list[HeadLevel[Value]]:
        """Builds the whole network on float BGR images in 0..255; levels of stride 8, 16, 32."""
        features = self._fpn(images) if self._is_darknet53 else self._pafpn(images)
        levels = []
        for number, feature in enumerate(features):
            cls = reg = self._block(f"head.stems.{number}", feature)
            for layer in (0, 1):
                cls = self._spatial(f"head.cls_convs.{number}.{layer}", cls)
                reg = self._spatial(f"head.reg_convs.{number}.{layer}", reg)
            kinds = (("reg", reg), ("obj", reg), ("cls", cls))
            levels.append(HeadLevel(*(self._layers.conv(f"head.{kind}_preds.{number}", x) for kind, x in kinds)))
        return levels

    def _pafpn(self, images: Value) -> tuple[Value, Value, Value]:
        stride8, stride16, stride32 = self._csp_darknet(images)

        def join(name: str, *parts: Value) -> Value:
            joined = self._layers.concatenate(f"backbone.{name}.input", *parts)
            return self._csp(f"backbone.{name}", joined, shortcut=False)

        lateral32 = self._block("backbone.lateral_conv0", stride32)
        down16 = join("C3_p4", self._layers.upsample("backbone.lateral_conv0.up", lateral32), stride16)
        lateral16 = self._block("backbone.reduce_conv1", down16)
        out8 = join("C3_p3", self._layers.upsample("backbone.reduce_conv1.up", lateral16), stride8)
        out16 = join("C3_n3", self._spatial("backbone.bu_conv2", out8, stride=2), lateral16)
        out32 = join("C3_n4", self._spatial("backbone.bu_conv1", out16, stride=2), lateral32)
        return out8, out16, out32

    def _csp_darknet(self, images: Value) -> tuple[Value, Value, Value]:
        stem = "backbone.backbone.stem.conv"
        x = self._layers.silu(f"{stem}.act", self._layers.focus_conv(f"{stem}.conv", images))
        levels = []
        for stage in ("dark2", "dark3", "dark4", "dark5"):
            name = f"backbone.backbone.{stage}"
            x = self._spatial(f"{name}.0", x, stride=2)
            if stage == "dark5":
                x = self._csp(f"{name}.2", self._spp(f"{name}.1", x), shortcut=False)
            else:
                x = self._csp(f"{name}.1", x, shortcut=True)
            levels.append(x)
        return levels[1], levels[2], levels[3]

    def _fpn(self, images: Value) -> tuple[Value, Value, Value]:
        stride8, stride16, stride32 = self._darknet53(images)

        def join(name: str, coarse: Value, fine: Value) -> Value:
            up = self._layers.upsample(f"backbone.{name}_cbl.up", self._block(f"backbone.{name}_cbl", coarse))
            return self._sequence(f"backbone.{name}", self._layers.concatenate(f"backbone.{name}.input", up, fine))

        out16 = join("out1", stride32, stride16)
        return join("out2", out16, stride8), out16, stride32

    def _darknet53(self, images: Value) -> tuple[Value, Value, Value]:
        x, levels = self._sequence("backbone.backbone.stem", images, down=1), []
        for stage in ("dark2", "dark3", "dark4", "dark5"):
            x = self._sequence(f"backbone.backbone.{stage}", x, down=0)
            levels.append(x)
        return levels[1], levels[2], levels[3]

    def _sequence(self, name: str, x: Value, down: int | None = None) -> Value:
        """Adds a sequence of numbered blocks (nn.Sequential in the reference); block number `down` has stride 2."""
        number = 0
        while kind := self._kind(each := f"{name}.{number}"):
            if kind == "residual":
                y = self._block(f"{each}.layer2", self._block(f"{each}.layer1", x))
                x = self._layers.add(f"{each}.sum", x, y)
            elif kind == "pyramid":
                x = self._spp(each, x)
            else:
                x = self._block(each, x, stride=2 if number == down else 1)
            number += 1
        return x

    def _kind(self, name: str) -> str | None:
        """Returns the kind of a numbered block, by the names of its tensors, or None after the last block."""
        for first, kind in (("conv", "block"), ("layer1.conv", "residual"), ("conv1.conv", "pyramid")):
            if f"{name}.{first}.weight" in self._names:
                return kind
        return None

    def _csp(self, name: str, x: Value, shortcut: bool) -> Value:
        through, around = self._block(f"{name}.conv1", x), self._block(f"{name}.conv2", x)
        number = 0
        while f"{name}.m.{number}.conv1.conv.weight" in self._names:
            y = self._spatial(f"{name}.m.{number}.conv2", self._block(f"{name}.m.{number}.conv1", through))
            through = self._layers.add(f"{name}.m.{number}.sum", through, y) if shortcut else y
            number += 1
        return self._block(f"{name}.conv3", self._layers.concatenate(f"{name}.joined", through, around))

    def _spp(self, name: str, x: Value) -> Value:
        x = self._block(f"{name}.conv1", x)
        pools = [self._layers.max_pool(f"{name}.pool{size}", x, size) for size in (5, 9, 13)]
        return self._block(f"{name}.conv2", self._layers.concatenate(f"{name}.joined", x, *pools))

    def _spatial(self, name: str, x: Value, stride: int = 1) -> Value:
        """Adds a 3×3 convolution block, depthwise separable if the weights are."""
        if f"{name}.dconv.conv.weight" in self._names:
            return self._block(f"{name}.pconv", self._block(f"{name}.dconv", x, stride))
        return self._block(name, x, stride)

    def _block(self, name: str, x: Value, stride: int = 1) -> Value:
        """Adds a convolution and the activation."""
        x = self._layers.conv(f"{name}.conv", x, stride)
        activation = self._layers.leaky_relu if self._is_darknet53 else self._layers.silu
        return activation(f"{name}.act", x)
