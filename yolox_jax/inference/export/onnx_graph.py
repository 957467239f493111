"""Builds an ONNX graph node by node; nodes and constants are named automatically."""

import itertools
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # ONNX Runtime, OpenVINO and TensorRT have all read it for years
_IR_VERSION = 8  # the version that came with opset 17; older runtimes refuse newer ones

Dims = list[int | str]  # a name stands for a size that is known only when the graph runs


class Graph:
    """An ONNX graph under construction. A value is named by a string: an input, a constant or an output of a node."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._number = itertools.count()

    def input(self, name: str, dtype: type[np.generic], dims: Dims) -> str:
        """Adds an input and returns its value."""
        self._inputs.append(helper.make_tensor_value_info(name, _tensor_type(dtype), dims))
        return name

    def output(self, name: str, value: str, dtype: type[np.generic], dims: Dims) -> None:
        """Makes a value an output of the graph under this name."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _tensor_type(dtype), dims))

    def constant(self, array: np.ndarray | list[int] | list[float]) -> str:
        """Adds a constant tensor. A list of int becomes int64, a list of float float32, as ONNX's operators expect."""
        if isinstance(array, list):
            array = np.array(array, np.int64 if all(isinstance(item, int) for item in array) else np.float32)
        name = f"constant_{next(self._number)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operator: str, *inputs: str, num_outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Adds a node and returns its output value, or a tuple of them if `num_outputs` is more than 1."""
        name = name or f"{operator}_{next(self._number)}"
        outputs = [name] + [f"{name}_{i}" for i in range(1, num_outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, **attributes))
        return name if num_outputs == 1 else tuple(outputs)

    def model(self, **metadata: str) -> onnx.ModelProto:
        """Returns the finished model with this metadata, checked by ONNX."""
        graph = helper.make_graph(self._nodes, "yolox", self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="yolox_jax",
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def _tensor_type(dtype: type[np.generic]) -> int:
    known = {
        np.float32: TensorProto.FLOAT,
        np.uint8: TensorProto.UINT8,
        np.int32: TensorProto.INT32,
        np.bool_: TensorProto.BOOL,
    }
    return known[dtype]
