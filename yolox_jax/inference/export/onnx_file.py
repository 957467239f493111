"""Builds a detector as an ONNX model, with or without decoding and NMS."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.utils

from yolox_jax.detection.anchors import make_anchors
from yolox_jax.errors import UserError
from yolox_jax.inference.export.official_network import folded_tensors
from yolox_jax.inference.export.onnx_detections import add_detections
from yolox_jax.inference.export.onnx_graph import Dims, Graph
from yolox_jax.inference.export.onnx_network import OUTPUT, OnnxNetwork
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.inference.pretrained import Pretrained


def raw_model(loaded: Pretrained, size_hw: tuple[int, int], batch: int | None) -> onnx.ModelProto:
    """Builds the same model as the official exporter, without decoding and NMS.

    images [B, 3, H, W] float32 BGR 0..255 -> output [B, A, 5 + C]. Any B will do if `batch` is None.
    """
    graph, dims = Graph(), batch or "batch"
    num_anchors, num_classes = len(make_anchors(size_hw).strides), len(loaded.class_names)
    images = graph.input("images", np.float32, [dims, 3, *size_hw])
    graph.output(
        "output",
        OnnxNetwork(graph, folded_tensors(loaded)).raw_output(images),
        np.float32,
        [dims, num_anchors, 5 + num_classes],
    )
    return graph.model(class_names=json.dumps(loaded.class_names))


def detecting_model(
    loaded: Pretrained, size_hw: tuple[int, int], batch: int | None, config: DetectConfig
) -> onnx.ModelProto:
    """Builds a model of the whole detector, with decoding and NMS.

    images [B, H, W, 3] uint8 BGR, letterboxed -> boxes [B, D, 4] xyxy in input pixels, scores, labels and mask [B, D],
    best score first. Any B will do if `batch` is None.

    Raises:
      UserError: the config asks for multi_label, tta or slices, which this model does not support.
    """
    if config.multi_label or config.tta or config.slices:
        raise UserError(
            "--format=onnx supports neither multi_label nor tta nor slices", "leave them out, or use --format=stablehlo"
        )
    graph, dims, anchors = Graph(), batch or "batch", make_anchors(size_hw)
    images = graph.input("images", np.uint8, [dims, *size_hw, 3])
    images_B3HW = graph.add("Transpose", graph.add("Cast", images, to=onnx.TensorProto.FLOAT), perm=[0, 3, 1, 2])
    output = OnnxNetwork(graph, folded_tensors(loaded)).raw_output(images_B3HW)
    found = add_detections(graph, output, anchors, len(loaded.class_names), config)
    num_slots = min(config.max_detections, config.num_candidates, len(anchors.strides))
    outputs: list[tuple[str, type[np.generic], Dims]] = [
        ("boxes", np.float32, [4]),
        ("scores", np.float32, []),
        ("labels", np.int32, []),
        ("mask", np.bool_, []),
    ]
    for value, (name, dtype, last_dims) in zip(found, outputs, strict=True):
        graph.output(name, value, dtype, [dims, num_slots, *last_dims])
    return graph.model(class_names=json.dumps(loaded.class_names))


def extract_network(path: Path, network: Path) -> None:
    """Writes the part of a `detecting_model` that ends before decoding and NMS, quantized or not, as a file."""
    (images,) = onnx.load(path).graph.input
    onnx.utils.extract_model(path, network, [images.name], [OUTPUT])


def add_metadata(model: onnx.ModelProto, key: str, text: str) -> None:
    """Adds a text to the metadata of a model."""
    model.metadata_props.add(key=key, value=text)
