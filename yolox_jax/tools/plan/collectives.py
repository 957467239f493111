"""Finds the collectives of a compiled program, and the bytes that each chip sends for them."""

import dataclasses
import re
from collections.abc import Sequence

from yolox_jax.tools.plan.hlo import Array, Instruction, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_GROUPS_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction in which chips exchange data."""

    kind: str  # one of KINDS
    num_bytes: int  # of the result on one chip
    group_size: int  # number of chips that take part

    @property
    def sent_bytes(self) -> float:
        """Bytes that each chip sends in a ring algorithm, which is the minimum for any algorithm."""
        others = self.group_size - 1
        per_result_byte = {
            "all-reduce": 2 * others / self.group_size,
            "all-gather": others / self.group_size,
            "reduce-scatter": others,
            "all-to-all": others / self.group_size,
            "collective-permute": 1,
        }
        return self.num_bytes * per_result_byte[self.kind]


def find_collectives(program: Program, num_chips: int) -> list[Collective]:
    """Lists the collectives of all computations in order. One inside a loop is listed once."""
    instructions = [instruction for lines in program.computations.values() for instruction in lines]
    found = []
    for instruction in instructions:
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            num_bytes = sum(array.num_bytes for array in _results(instruction))
            found.append(Collective(kind, num_bytes, _group_size(instruction.attributes, num_chips)))
    return found


def describe(collectives: Sequence[Collective]) -> str:
    """Counts the collectives by kind: "2 all-reduce, 1 all-gather"."""
    counts = {kind: sum(each.kind == kind for each in collectives) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none"


def _results(instruction: Instruction) -> Sequence[Array]:
    """Selects the result arrays of a collective.

    The start of an asynchronous collective returns its operands, its results and sometimes two counters of four bytes;
    the start of an all-reduce returns only results.
    """
    arrays = instruction.arrays
    if not instruction.opcode.endswith("-start") or instruction.opcode == "all-reduce-start":
        return arrays
    if len(arrays) > 2 and [array.num_bytes for array in arrays[-2:]] == [4, 4]:
        arrays = arrays[:-2]
    return arrays[len(arrays) // 2 :]


def _group_size(attributes: str, num_chips: int) -> int:
    if counted := _GROUPS_COUNTED.search(attributes):
        return int(counted[2])
    if listed := _GROUPS_LISTED.search(attributes):
        return len(listed[1].split(","))
    return num_chips
