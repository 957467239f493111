"""Lists the kernels of a program compiled for a GPU: the bytes that each moves, and the FLOPs of products.

XLA calls cuDNN for convolutions, cuBLAS or Triton for matrix products, and compiles everything else into fusions.
"""

import dataclasses
import math
from collections import defaultdict

from yolox_jax.tools.plan.hlo import Array, Instruction, Program

_NO_KERNEL = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    "iota",
}
_RUN_OTHERS = {"while", "conditional", "call", "async-start"}  # cost what the computations they run cost
_SLICES = {"slice", "dynamic-slice", "gather"}
_DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
# What cuDNN's functions return and take: the places of the image, the kernel and the result of the convolution among
# operands (0, 1) and result (2). Their layout is `dim_labels`, in the order in which they stand in the line.
_CONVOLUTIONS = {
    "__cudnn$convForward": (0, 1, 2),
    "__cudnn$convBiasActivationForward": (0, 1, 2),
    "__cudnn$convBackwardInput": (2, 1, 0),
    "__cudnn$convBackwardFilter": (0, 2, 1),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One instruction that runs on the GPU by itself."""

    kind: str  # "convolution", "matrix product", "transpose" or another opcode
    num_bytes: int  # read and written
    flops: float = 0  # of products
    dtype: str = ""  # what is multiplied
    is_nchw: bool = False  # a convolution whose channels are not its innermost axis


def find_kernels(program: Program) -> list[Kernel]:
    """Lists the kernels in order. A loop counts one iteration, a conditional all its branches."""
    return _kernels_of(program, program.entry)


def _kernels_of(program: Program, computation: str) -> list[Kernel]:
    arrays: dict[str, tuple[Array, ...]] = {}
    kernels = []
    for instruction in program.computations[computation]:
        arrays[instruction.name] = instruction.arrays
        if instruction.opcode in _RUN_OTHERS:
            kernels += [kernel for called in instruction.called() for kernel in _kernels_of(program, called)]
        elif instruction.opcode not in _NO_KERNEL and not instruction.opcode.endswith("-done"):
            operands = [arrays.get(operand, ()) for operand in instruction.operands]
            kernels.append(_kernel(program, instruction, operands))
    return kernels


def _kernel(program: Program, instruction: Instruction, operands: list[tuple[Array, ...]]) -> Kernel:
    num_bytes = _size(instruction.arrays) + sum(map(_size, operands))
    target = instruction.attribute(r'custom_call_target="([^"]+)"')
    if target in _CONVOLUTIONS:
        return _convolution(instruction, operands, num_bytes)
    if target.startswith("__cublas$"):
        lhs, result = operands[0][0], instruction.arrays[0]
        axes = instruction.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]').replace('"', "")
        return Kernel("matrix product", num_bytes, _dot_flops(lhs, result, axes), _DTYPES.get(lhs.dtype, lhs.dtype))
    if instruction.opcode == "fusion":
        return _fusion(program, instruction, operands)
    if instruction.opcode in _SLICES:
        return Kernel(instruction.opcode, 2 * _size(instruction.arrays))
    return Kernel(target or instruction.opcode, num_bytes)


def _convolution(instruction: Instruction, operands: list[tuple[Array, ...]], num_bytes: int) -> Kernel:
    """A kernel of cuDNN. Each output is a sum over the kernel's taps and input channels, padding included."""
    arrays = [operands[0][0], operands[1][0], instruction.arrays[0]]
    image, kernel, result = _CONVOLUTIONS[instruction.attribute(r'custom_call_target="([^"]+)"')]
    labels = instruction.attribute(r"dim_labels=([\w>-]+)")
    image_labels, _, rest = labels.partition("_")
    kernel_sides = arrays[kernel].sides
    num_outputs = kernel_sides[rest.index("o")]
    flops = 2 * math.prod(arrays[result].sides) * math.prod(kernel_sides) / num_outputs
    innermost = arrays[image].minor_to_major[:1]
    is_nchw = innermost != (image_labels.index("f"),) and len(image_labels) > 3
    dtype = arrays[0].dtype
    return Kernel("convolution", num_bytes, flops, _DTYPES.get(dtype, dtype), is_nchw)


def _fusion(program: Program, instruction: Instruction, operands: list[tuple[Array, ...]]) -> Kernel:
    body = program.computations.get(instruction.attribute(r"\bcalls=%?([\w.-]+)"), [])
    num_bytes = _fusion_bytes(instruction, operands, body)
    flops, dtype = 0.0, ""
    inner = [each for fused in body for called in fused.called() for each in program.computations.get(called, [])]
    for part in (body, inner):  # Triton's products are in a fusion of their own inside
        arrays = {each.name: each.arrays for each in part}
        for each in part:
            if each.opcode == "dot":
                lhs = arrays[each.operands[0]][0]
                flops += _dot_flops(lhs, each.arrays[0], each.attribute(r"lhs_contracting_dims=\{([\d,]*)\}"))
                dtype = _DTYPES.get(lhs.dtype, lhs.dtype)
    if flops:
        return Kernel("matrix product", num_bytes, flops, dtype)
    opcodes = {each.opcode for each in body}
    return Kernel("transpose" if "transpose" in opcodes else "fusion", num_bytes)


def _fusion_bytes(instruction: Instruction, operands: list[tuple[Array, ...]], body: list[Instruction]) -> int:
    """Operands and results; only the slices of an operand that is sliced, only the update of one updated in place."""
    users: dict[str, list[Instruction]] = defaultdict(list)
    for each in body:
        for name in each.operands:
            users[name].append(each)
    arrays = {each.name: each.arrays for each in body}
    parameters = {int(each.argument): each.name for each in body if each.opcode == "parameter"}
    root = next((each for each in body if each.is_root), None)
    updated = ""
    written = _size(instruction.arrays)
    if root is not None and root.opcode == "dynamic-update-slice":
        updated, written = root.operands[0], _size(arrays[root.operands[1]])
    read = 0
    for number, operand in enumerate(operands):
        name = parameters.get(number, "")
        if name == updated != "":
            continue
        slices = users[name]
        only_slices = slices and all(each.opcode in _SLICES and each.operands[0] == name for each in slices)
        sliced = sum(_size(each.arrays) for each in slices)
        read += min(_size(operand), sliced) if only_slices else _size(operand)
    return written + read


def _dot_flops(lhs: Array, result: Array, contracting: str) -> float:
    return 2 * math.prod(result.sides) * math.prod(lhs.sides[int(axis)] for axis in contracting.split(",") if axis)


def _size(arrays: tuple[Array, ...]) -> int:
    return sum(array.num_bytes for array in arrays)
