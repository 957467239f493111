"""Builds a LiteRT (TFLite) graph operator by operator, with the classes that ai-edge-litert has for its schema."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of constants, which the runtime maps as they are in the file


class Tensor(NamedTuple):
    """A value of the graph: an input, a constant or the output of an operator."""

    number: int  # its place among the tensors
    shape: tuple[int, ...]


class Graph:
    """A LiteRT graph under construction. Every shape is known: the runtime's delegates ask for it."""

    def __init__(self) -> None:
        self._buffers = [schema.BufferT()]  # by convention the first is empty, for tensors that are computed
        self._codes: list[str] = []
        self._operators: list[Any] = []
        self._tensors: list[Any] = []
        self._inputs: dict[str, Tensor] = {}

    def input(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> Tensor:
        """Adds an input."""
        self._inputs[name] = self._tensor(name, dtype, shape)
        return self._inputs[name]

    def constant(self, array: np.ndarray | list[Any], name: str = "") -> Tensor:
        """Adds a constant. A list, of whole numbers, says how an operator works, such as the shape of its output."""
        if isinstance(array, list):
            array = np.array(array, np.int32)
        return self._tensor(name or "constant", array.dtype.type, array.shape, self._buffer(array.tobytes()), not name)

    def add(
        self,
        operator: str,
        *inputs: Tensor,
        shape: tuple[int, ...],
        name: str = "",
        options: Any = None,
        outputs: int = 1,
    ) -> Any:
        """Adds an operator by its name in the schema. Returns its output, or a tuple if there are several.

        Args:
          operator: such as CONV_2D.
          inputs: in the schema's order.
          shape: that of the output, or of each of them.
          name: of the output, which a quantizer knows it by; the operator's and a number by default.
          options: an object of the class for the options of this operator, if it has any.
          outputs: their number.
        """
        if operator not in self._codes:
            self._codes.append(operator)
        results = tuple(self._tensor(name or operator.lower(), np.float32, shape, 0, not name) for _ in range(outputs))
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.index(operator),
                inputs=[each.number for each in inputs],
                outputs=[each.number for each in results],
                builtinOptionsType=_type_of(options),
                builtinOptions=options,
            )
        )
        return results[0] if outputs == 1 else results

    def model(self, outputs: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
        """Returns the finished file. Its one signature has the names of the inputs and outputs."""
        for name, tensor in outputs.items():
            self._tensors[tensor.number].name = name
        codes = [getattr(schema.BuiltinOperator, name) for name in self._codes]
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=[each.number for each in self._inputs.values()],
            outputs=[each.number for each in outputs.values()],
            operators=self._operators,
            name="yolox",
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name, each.number) for name, each in self._inputs.items()],
            outputs=[schema.TensorMapT(name, each.number) for name, each in outputs.items()],
            signatureKey="serving_default",
        )
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            # Old runtimes read the byte; operators above 127 did not exist for them.
            operatorCodes=[schema.OperatorCodeT(min(code, 127), builtinCode=code) for code in codes],
            subgraphs=[subgraph],
            description="yolox_jax",
            metadata=[schema.MetadataT(key, self._buffer(text.encode())) for key, text in metadata.items()],
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        return pack(model)

    def _tensor(
        self, name: str, dtype: type[np.generic], shape: tuple[int, ...], buffer: int = 0, numbered: bool = False
    ) -> Tensor:
        index = len(self._tensors)
        if numbered:
            name = f"{name}_{index}"
        self._tensors.append(schema.TensorT(shape, _TYPES[dtype], buffer, name))
        return Tensor(index, shape)

    def _buffer(self, data: bytes) -> int:
        self._buffers.append(schema.BufferT(np.frombuffer(data, np.uint8)))
        return len(self._buffers) - 1


_TYPES = {
    np.float32: schema.TensorType.FLOAT32,
    np.int32: schema.TensorType.INT32,
    np.uint8: schema.TensorType.UINT8,
}


def pack(model: Any) -> bytes:
    """Returns the file of a schema.ModelT."""
    builder = _AlignedBuilder()
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns arrays as the schema demands (`force_align`), which Python's flatbuffers does not do by itself."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        self.Prep(_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)


def _type_of(options: Any) -> int:
    """Returns the number of an options class, Conv2DOptionsT for example, in the schema's union."""
    name = "NONE" if options is None else type(options).__name__.removesuffix("T")
    return getattr(schema.BuiltinOptions, name)
