"""Writes the networks as LiteRT graphs, with decoded boxes and scores as their outputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from yolox_jax.inference.export.litert_graph import Graph, Tensor
from yolox_jax.inference.export.official_network import HeadLevel, OfficialNetwork
from yolox_jax.types import Anchors

PADDED = ".padded"  # ends the name of a convolution's padded input
_SAME, _VALID = schema.Padding.SAME, schema.Padding.VALID


def add_network(
    graph: Graph, state_dict: Mapping[str, np.ndarray], images_BHW3: Tensor, anchors: Anchors
) -> tuple[Tensor, Tensor]:
    """Adds a network and its decoding, from the official state dict of variables whose BatchNorm is folded.

    Float BGR images in 0..255 -> boxes [B, A, 4] xyxy in input pixels, scores [B, A, C]: objectness times class.
    """
    levels = OfficialNetwork(_LiteRTLayers(graph, state_dict), state_dict).head_levels(images_BHW3)
    return _boxes(graph, levels, anchors), _scores(graph, levels)


def _boxes(graph: Graph, levels: list[HeadLevel[Tensor]], anchors: Anchors) -> Tensor:
    delta_BA4 = _all_levels(graph, [level.box for level in levels])
    stride_1A1 = np.asarray(anchors.strides, np.float32)[None, :, None]
    index_1A2 = np.asarray(anchors.centers, np.float32)[None] / stride_1A1 - np.float32(0.5)
    pair = (*delta_BA4.shape[:2], 2)

    def add(operator: str, x: Tensor, y: Tensor, options: Any) -> Tensor:
        return graph.add(operator, x, y, shape=pair, options=options)

    axis = graph.constant(np.array(2, np.int32))
    xy, wh = graph.add("SPLIT", axis, delta_BA4, shape=pair, options=schema.SplitOptionsT(2), outputs=2)
    cell = add("ADD", xy, graph.constant(index_1A2), schema.AddOptionsT())
    center = add("MUL", cell, graph.constant(stride_1A1), schema.MulOptionsT())
    size = graph.add("EXP", wh, shape=pair, options=schema.ExpOptionsT())
    half_size = add("MUL", size, graph.constant(stride_1A1 / 2), schema.MulOptionsT())
    top_left = add("SUB", center, half_size, schema.SubOptionsT())
    bottom_right = add("ADD", center, half_size, schema.AddOptionsT())
    options = schema.ConcatenationOptionsT(2)
    return graph.add("CONCATENATION", top_left, bottom_right, shape=delta_BA4.shape, options=options)


def _scores(graph: Graph, levels: list[HeadLevel[Tensor]]) -> Tensor:
    logits = (_all_levels(graph, part) for part in ([each.obj for each in levels], [each.cls for each in levels]))
    obj_BA1, prob_BAC = (graph.add("LOGISTIC", logit, shape=logit.shape) for logit in logits)
    return graph.add("MUL", obj_BA1, prob_BAC, shape=prob_BAC.shape, options=schema.MulOptionsT())


def _all_levels(graph: Graph, levels_BHWc: list[Tensor]) -> Tensor:
    """Joins the pixels of all levels: [B, A, c]."""
    flat = []
    for level in levels_BHWc:
        batch, height, width, channels = level.shape
        # -1, so that the runtime's resize_tensor_input can change the number of images.
        new_shape = graph.constant([-1, height * width, channels])
        flat.append(graph.add("RESHAPE", level, new_shape, shape=(batch, height * width, channels)))
    joined = (batch, sum(each.shape[1] for each in flat), channels)
    return graph.add("CONCATENATION", *flat, shape=joined, options=schema.ConcatenationOptionsT(1))


class _LiteRTLayers:
    """The layers on values [B, H, W, C]."""

    def __init__(self, graph: Graph, tensors: Mapping[str, np.ndarray]):
        self._graph = graph
        self._tensors = tensors

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return self._conv(name, x, self._tensors[f"{name}.weight"], stride)

    def focus_conv(self, name: str, images: Tensor) -> Tensor:
        """One convolution of stride 2 with twice the kernel, 6×6: space-to-depth only permutes the kernel."""
        kernel = self._tensors[f"{name}.weight"]
        out, channels, size, _ = kernel.shape
        # Input channels are column, row and color of a pixel in its 2×2 patch.
        kernel = kernel.reshape(out, 2, 2, channels // 4, size, size).transpose(0, 3, 4, 2, 5, 1)
        return self._conv(name, images, kernel.reshape(out, channels // 4, 2 * size, 2 * size), 2)

    def silu(self, name: str, x: Tensor) -> Tensor:
        gate = self._graph.add("LOGISTIC", x, shape=x.shape, name=f"{name}.gate")
        return self._graph.add("MUL", x, gate, shape=x.shape, name=name, options=schema.MulOptionsT())

    def leaky_relu(self, name: str, x: Tensor) -> Tensor:
        return self._graph.add("LEAKY_RELU", x, shape=x.shape, name=name, options=schema.LeakyReluOptionsT(0.1))

    def add(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        return self._graph.add("ADD", x, y, shape=x.shape, name=name, options=schema.AddOptionsT())

    def concatenate(self, name: str, *parts: Tensor) -> Tensor:
        shape = (*parts[0].shape[:3], sum(each.shape[3] for each in parts))
        return self._graph.add("CONCATENATION", *parts, shape=shape, name=name, options=schema.ConcatenationOptionsT(3))

    def max_pool(self, name: str, x: Tensor, size: int) -> Tensor:
        options = schema.Pool2DOptionsT(_SAME, 1, 1, size, size)
        return self._graph.add("MAX_POOL_2D", x, shape=x.shape, name=name, options=options)

    def upsample(self, name: str, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        size, options = self._graph.constant([2 * height, 2 * width]), schema.ResizeNearestNeighborOptionsT()
        shape = (batch, 2 * height, 2 * width, channels)
        return self._graph.add("RESIZE_NEAREST_NEIGHBOR", x, size, shape=shape, name=name, options=options)

    def _conv(self, name: str, x: Tensor, kernel_OIHW: np.ndarray, stride: int) -> Tensor:
        out, _, size, _ = kernel_OIHW.shape
        padding = _SAME
        if stride > 1 and size % 2:  # there SAME pads only right and bottom; an even kernel gets both sides
            x, padding = self._pad(f"{name}{PADDED}", x, size // 2), _VALID
        if is_depthwise := name.endswith(".dconv.conv"):
            kernel, options = (
                kernel_OIHW.transpose(1, 2, 3, 0),
                schema.DepthwiseConv2DOptionsT(padding, stride, stride, 1),
            )
        else:
            kernel, options = kernel_OIHW.transpose(0, 2, 3, 1), schema.Conv2DOptionsT(padding, stride, stride)
        batch, height, width, _ = x.shape
        if padding == _VALID:
            height, width = height - size + 1, width - size + 1
        return self._graph.add(
            "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
            x,
            self._graph.constant(np.ascontiguousarray(kernel, np.float32), f"{name}.weight"),
            self._graph.constant(np.asarray(self._tensors[f"{name}.bias"], np.float32), f"{name}.bias"),
            shape=(batch, -(-height // stride), -(-width // stride), out),
            name=name,
            options=options,
        )

    def _pad(self, name: str, x: Tensor, margin: int) -> Tensor:
        batch, height, width, channels = x.shape
        margins = self._graph.constant([[0, 0], [margin, margin], [margin, margin], [0, 0]])
        shape = (batch, height + 2 * margin, width + 2 * margin, channels)
        return self._graph.add("PAD", x, margins, shape=shape, name=name, options=schema.PadOptionsT())
