"""Quantizes LiteRT files to INT8 with Google's quantizer.

Weights have a scale for each output channel, other tensors one.
"""

import re
import warnings

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from litert_quantizer import quantizer
from litert_quantizer.qtyping import TFLOperationName

from yolox_jax.inference.export.int8 import PIXELS, Int8Plan, Range
from yolox_jax.inference.export.litert_graph import pack
from yolox_jax.inference.export.litert_network import PADDED

_UNUSED: Range = (0.0, 1.0)  # of tensors after the prediction layers, which the quantizer asks for all the same


def quantize(model: bytes, plan: Int8Plan) -> bytes:
    """Returns a file of litert_file.py with the layers of the plan in INT8, and its metadata as they are."""
    graph = schema.ModelT.InitFromPackedBuf(model).subgraphs[0]
    names = [each.name.decode() for each in graph.tensors]
    made = quantizer.Quantizer(model)
    ranges = {names[graph.inputs[0]]: PIXELS}
    for operator in graph.operators:
        source, output = names[operator.inputs[0]], names[operator.outputs[0]]
        ranges[output] = plan.ranges.get(output) or ranges.get(source, _UNUSED)  # padding leaves the range
        layer = output.removesuffix(PADDED)
        if layer in plan.ranges and plan.is_int8(layer):
            # The quantizer knows an operator by the names of its outputs, each followed by a semicolon.
            this, kind = f"^{re.escape(output)};$", TFLOperationName.ALL_SUPPORTED
            made.add_static_config(this, kind, activation_num_bits=8, weight_num_bits=8)
    statistics = {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in ranges.items()
    }
    with warnings.catch_warnings():
        # The quantizer lists the tensors by an interpreter that keeps them all, of which the runtime warns.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        result = made.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return _with_buffers_inside(bytes(result.quantized_model))


def _with_buffers_inside(model: bytes) -> bytes:
    """Moves the buffers that the quantizer appends to the file into the model, where every runtime finds them."""
    content = schema.ModelT.InitFromPackedBuf(model)
    for buffer in content.buffers:
        if buffer.data is None and buffer.size:
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return pack(content)
