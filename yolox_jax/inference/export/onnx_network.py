"""Writes the networks as ONNX graphs, with the same operators as the official exporter.

tests/inference/export/test_onnx.py compares every kind of network with the reference.
"""

from collections.abc import Mapping

import numpy as np

from yolox_jax.inference.export.official_network import OfficialNetwork
from yolox_jax.inference.export.onnx_graph import Graph

OUTPUT = "network"  # the name of the network's output, which decoding and NMS take


class OnnxNetwork:
    """Adds a network to a graph, from the official state dict of variables whose BatchNorm is folded."""

    def __init__(self, graph: Graph, state_dict: Mapping[str, np.ndarray]):
        self._graph = graph
        self._num_classes = len(state_dict["head.cls_preds.0.bias"])
        self._network = OfficialNetwork(_OnnxLayers(graph, state_dict), state_dict)

    def raw_output(self, images_B3HW: str) -> str:
        """Adds the network: float BGR images in 0..255 -> [B, A, 5 + C], raw boxes and sigmoids of obj and cls."""
        outputs = []
        for level in self._network.head_levels(images_B3HW):
            obj, prob = (self._graph.add("Sigmoid", logit) for logit in (level.obj, level.cls))
            joined = self._graph.add("Concat", level.box, obj, prob, axis=1)
            # In ONNX's Reshape 0 keeps the input's size, so any batch size will do.
            outputs.append(self._graph.add("Reshape", joined, self._graph.constant([0, 5 + self._num_classes, -1])))
        return self._graph.add("Transpose", self._graph.add("Concat", *outputs, axis=2), name=OUTPUT, perm=[0, 2, 1])


class _OnnxLayers:
    """The layers on values [B, C, H, W]."""

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray]):
        self._graph = graph
        self._tensors = tensors

    def conv(self, name: str, x: str, stride: int = 1) -> str:
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

    def focus_conv(self, name: str, images: str) -> str:
        end, axes, steps = (self._graph.constant(value) for value in ([1 << 31, 1 << 31], [2, 3], [2, 2]))
        quarters = [
            self._graph.add("Slice", images, self._graph.constant([row, column]), end, axes, steps)
            for column in (0, 1)
            for row in (0, 1)
        ]
        return self.conv(name, self.concatenate(f"{name}.patches", *quarters))

    def silu(self, name: str, x: str) -> str:
        return self._graph.add("Mul", x, self._graph.add("Sigmoid", x, name=f"{name}.gate"), name=name)

    def leaky_relu(self, name: str, x: str) -> str:
        return self._graph.add("LeakyRelu", x, name=name, alpha=0.1)

    def add(self, name: str, x: str, y: str) -> str:
        return self._graph.add("Add", x, y, name=name)

    def concatenate(self, name: str, *parts: str) -> str:
        return self._graph.add("Concat", *parts, name=name, axis=1)

    def max_pool(self, name: str, x: str, size: int) -> str:
        pads = [size // 2] * 4
        return self._graph.add("MaxPool", x, name=name, kernel_shape=[size] * 2, strides=[1, 1], pads=pads)

    def upsample(self, name: str, x: str) -> str:
        return self._graph.add(
            "Resize",
            x,
            "",
            self._graph.constant([1.0, 1.0, 2.0, 2.0]),
            name=name,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
