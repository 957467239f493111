"""Builds the networks as ONNX graphs, with the same operators as the official exporter.

Blocks, depths and depthwise convolutions are inferred from the names of the tensors. Only the connections between
blocks and the strides are written here. tests/inference/export/test_onnx.py compares every kind of network with the
reference.
"""

from collections.abc import Mapping

import numpy as np

from yolox_jax.inference.export.onnx_graph import Graph


class OnnxNetwork:
    """Adds a network to a graph, from the official state dict of variables whose BatchNorm is folded."""

    def __init__(self, graph: Graph, state_dict: Mapping[str, np.ndarray]):
        self._graph = graph
        self._tensors = state_dict
        self._is_darknet53 = "backbone.out1_cbl.conv.weight" in state_dict

    def raw_output(self, images_B3HW: str) -> str:
        """Adds the network: float BGR images in 0..255 -> [B, A, 5 + C], raw boxes and sigmoids of obj and cls."""
        levels = self._fpn(images_B3HW) if self._is_darknet53 else self._pafpn(images_B3HW)
        outputs = []
        for number, level in enumerate(levels):
            stem = self._block(f"head.stems.{number}", level)
            cls, reg = stem, stem
            for layer in (0, 1):
                cls = self._spatial(f"head.cls_convs.{number}.{layer}", cls)
                reg = self._spatial(f"head.reg_convs.{number}.{layer}", reg)
            box = self._conv(f"head.reg_preds.{number}", reg)
            obj = self._graph.add("Sigmoid", self._conv(f"head.obj_preds.{number}", reg))
            prob = self._graph.add("Sigmoid", self._conv(f"head.cls_preds.{number}", cls))
            joined = self._graph.add("Concat", box, obj, prob, axis=1)
            # In ONNX's Reshape 0 keeps the input's size, so any batch size will do.
            flat_shape = self._graph.constant([0, 5 + len(self._tensors["head.cls_preds.0.bias"]), -1])
            outputs.append(self._graph.add("Reshape", joined, flat_shape))
        return self._graph.add("Transpose", self._graph.add("Concat", *outputs, axis=2), perm=[0, 2, 1])

    def _pafpn(self, images: str) -> tuple[str, str, str]:
        stride8, stride16, stride32 = self._csp_darknet(images)

        def join(name: str, *parts: str) -> str:
            return self._csp(f"backbone.{name}", self._graph.add("Concat", *parts, axis=1), shortcut=False)

        lateral32 = self._block("backbone.lateral_conv0", stride32)
        down16 = join("C3_p4", self._upsample(lateral32), stride16)
        lateral16 = self._block("backbone.reduce_conv1", down16)
        out8 = join("C3_p3", self._upsample(lateral16), stride8)
        out16 = join("C3_n3", self._spatial("backbone.bu_conv2", out8, stride=2), lateral16)
        out32 = join("C3_n4", self._spatial("backbone.bu_conv1", out16, stride=2), lateral32)
        return out8, out16, out32

    def _csp_darknet(self, images: str) -> tuple[str, str, str]:
        end, axes, steps = (self._graph.constant(value) for value in ([1 << 31, 1 << 31], [2, 3], [2, 2]))
        quarters = [  # space-to-depth: the four pixels of each 2×2 patch, column by column
            self._graph.add("Slice", images, self._graph.constant([row, column]), end, axes, steps)
            for column in (0, 1)
            for row in (0, 1)
        ]
        x = self._block("backbone.backbone.stem.conv", self._graph.add("Concat", *quarters, axis=1))
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

    def _fpn(self, images: str) -> tuple[str, str, str]:
        stride8, stride16, stride32 = self._darknet53(images)

        def join(name: str, coarse: str, fine: str) -> str:
            up = self._upsample(self._block(f"backbone.{name}_cbl", coarse))
            return self._sequence(f"backbone.{name}", self._graph.add("Concat", up, fine, axis=1))

        out16 = join("out1", stride32, stride16)
        return join("out2", out16, stride8), out16, stride32

    def _darknet53(self, images: str) -> tuple[str, str, str]:
        x, levels = self._sequence("backbone.backbone.stem", images, down=1), []
        for stage in ("dark2", "dark3", "dark4", "dark5"):
            x = self._sequence(f"backbone.backbone.{stage}", x, down=0)
            levels.append(x)
        return levels[1], levels[2], levels[3]

    def _sequence(self, name: str, x: str, down: int | None = None) -> str:
        """Adds a sequence of numbered blocks (nn.Sequential in the reference); block number `down` has stride 2."""
        number = 0
        while kind := self._kind(each := f"{name}.{number}"):
            if kind == "residual":
                x = self._graph.add("Add", x, self._block(f"{each}.layer2", self._block(f"{each}.layer1", x)))
            elif kind == "pyramid":
                x = self._spp(each, x)
            else:
                x = self._block(each, x, stride=2 if number == down else 1)
            number += 1
        return x

    def _kind(self, name: str) -> str | None:
        """Returns the kind of a numbered block, by the names of its tensors, or None after the last block."""
        for first, kind in (("conv", "block"), ("layer1.conv", "residual"), ("conv1.conv", "pyramid")):
            if f"{name}.{first}.weight" in self._tensors:
                return kind
        return None

    def _csp(self, name: str, x: str, shortcut: bool) -> str:
        through, around = self._block(f"{name}.conv1", x), self._block(f"{name}.conv2", x)
        number = 0
        while f"{name}.m.{number}.conv1.conv.weight" in self._tensors:
            y = self._spatial(f"{name}.m.{number}.conv2", self._block(f"{name}.m.{number}.conv1", through))
            through = self._graph.add("Add", through, y) if shortcut else y
            number += 1
        return self._block(f"{name}.conv3", self._graph.add("Concat", through, around, axis=1))

    def _spp(self, name: str, x: str) -> str:
        x = self._block(f"{name}.conv1", x)
        pools = [
            self._graph.add("MaxPool", x, kernel_shape=[size] * 2, strides=[1, 1], pads=[size // 2] * 4)
            for size in (5, 9, 13)
        ]
        return self._block(f"{name}.conv2", self._graph.add("Concat", x, *pools, axis=1))

    def _upsample(self, x: str) -> str:
        return self._graph.add(
            "Resize",
            x,
            "",
            self._graph.constant([1.0, 1.0, 2.0, 2.0]),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _spatial(self, name: str, x: str, stride: int = 1) -> str:
        """Adds a 3×3 convolution block, depthwise separable if the weights are."""
        if f"{name}.dconv.conv.weight" in self._tensors:
            return self._block(f"{name}.pconv", self._block(f"{name}.dconv", x, stride))
        return self._block(name, x, stride)

    def _block(self, name: str, x: str, stride: int = 1) -> str:
        """Adds a convolution and the activation."""
        x = self._conv(f"{name}.conv", x, stride)
        if self._is_darknet53:
            return self._graph.add("LeakyRelu", x, alpha=0.1)
        return self._graph.add("Mul", x, self._graph.add("Sigmoid", x))

    def _conv(self, name: str, x: str, stride: int = 1) -> str:
        kernel, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        size = kernel.shape[2]
        return self._graph.add(
            "Conv",
            x,
            self._graph.constant(kernel),
            self._graph.constant(bias),
            name=name,
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=len(kernel) if name.endswith(".dconv.conv") else 1,
        )
