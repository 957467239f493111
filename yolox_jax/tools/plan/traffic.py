"""Counts the bytes that one run of a compiled program reads and writes in HBM.

The compiler's own count ("bytes accessed") includes operands and results in any memory. The TPU compiler keeps much of
a program's data in on-chip memory (128 MB on v5e), which has its own, higher bandwidth, and counts copies between the
two memories several times. Here an array counts only if it lies in HBM.
"""

from yolox_jax.tools.plan.hlo import Array, Instruction, Program

# Not counted: they name existing arrays or parts of them, or generate their values (iota, partition-id).
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "iota"}
_RUN_OTHERS = {"while", "conditional", "call"}  # cost what the computations they run cost
_SLICES = {"slice", "slice-start", "dynamic-slice"}  # read as many bytes as they return, not their whole operand


def hbm_bytes(program: Program) -> int:
    """Counts bytes read and written in HBM on one chip, including padding.

    A fusion counts all of its operands, even if it reads only parts of them. A loop counts as one iteration.
    """
    return _computation_bytes(program, program.entry)


def _computation_bytes(program: Program, name: str) -> int:
    arrays: dict[str, tuple[Array, ...]] = {}
    total = 0
    for instruction in program.computations[name]:
        arrays[instruction.name] = instruction.arrays
        if instruction.opcode in _RUN_OTHERS:
            total += sum(_computation_bytes(program, called) for called in instruction.called())
        elif not _moves_nothing(instruction):
            operands = [array for operand in instruction.operands for array in arrays.get(operand, ())]
            total += _instruction_bytes(instruction, operands)
    return total


def _moves_nothing(instruction: Instruction) -> bool:
    return (
        instruction.opcode in _FREE
        or instruction.opcode.endswith("-done")  # counted at its start
        or 'custom_call_target="ConcatBitcast"' in instruction.attributes  # its operands are already adjacent in memory
    )


def _instruction_bytes(instruction: Instruction, operands: list[Array]) -> int:
    results = list(instruction.arrays)
    if instruction.opcode == "copy-start":
        results = results[:1]  # destination, source, context
    elif instruction.opcode == "slice-start":
        results = results[1:2]  # source, destination, context
    written = _in_hbm(results)
    if instruction.opcode in _SLICES:
        source = operands[0]
        return written + (sum(array.laid_out_bytes for array in results) if source.in_hbm else 0)
    return written + _in_hbm(operands)


def _in_hbm(arrays: list[Array]) -> int:
    return sum(array.laid_out_bytes for array in arrays if array.in_hbm)
