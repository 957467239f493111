"""Quantizes ONNX files to INT8 with ONNX Runtime's quantizer: pairs of QuantizeLinear and DequantizeLinear.

Weights have a scale for each output channel and 7 bits: processors without VNNI add two products in 16 bits, which 8
would overflow. Other tensors have one scale and 256 steps.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization

from yolox_jax.inference.export.int8 import PIXELS, Int8Plan


def quantize(model: onnx.ModelProto, plan: Int8Plan) -> onnx.ModelProto:
    """Returns a model of onnx_file.py with the layers of the plan in INT8."""
    # Says that the graph is optimized already; otherwise ONNX Runtime advises to do so.
    mark = model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    layers = {node.name for node in model.graph.node if node.name in plan.ranges}
    first = next(node for node in model.graph.node if node.op_type == "Conv").input[0]  # the images, or a layer's
    ranges = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
        for name, (low, high) in ({first: PIXELS} | plan.ranges).items()
        if name in layers | {first}
    }
    with tempfile.TemporaryDirectory(prefix="yolox_jax_") as folder:
        given, path = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, given)  # from a model in memory, onnxruntime 1.20 takes the constants away
        quantization.quantize_static(
            given,
            path,
            _OneImage(model.graph.input[0]),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=[name for name in layers if plan.is_int8(name)],
            extra_options={"TensorQuantOverrides": ranges},
        )
        quantized = onnx.load(path)
    for each in (model, quantized):
        if mark in each.metadata_props:
            each.metadata_props.remove(mark)
    return quantized


class _OneImage(quantization.CalibrationDataReader):
    """What `quantize_static` calibrates with by itself, before the plan's ranges replace what it finds."""

    def __init__(self, images: onnx.ValueInfoProto):
        sizes = [each.dim_value or 1 for each in images.type.tensor_type.shape.dim]
        self._left = [
            {images.name: np.zeros(sizes, onnx.helper.tensor_dtype_to_np_dtype(images.type.tensor_type.elem_type))}
        ]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None
