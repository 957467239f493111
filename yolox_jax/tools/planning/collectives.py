"""What the chips tell each other in one step, read from the text of a compiled program."""

import dataclasses
import math
import re
from collections.abc import Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# `%name = shape opcode(operands), …`; the shape may be a tuple and may carry layouts, which have parentheses of their own.
_INSTRUCTION = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.-]+ = (?P<shape>[^\"]+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)(?:e\dm\d\w*)?\[([\d,]*)\]")
_GROUPS_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction by which chips exchange data."""

    kind: str  # of KINDS
    num_bytes: int  # of its result on one chip
    group_size: int  # chips that take part

    @property
    def sent_bytes(self) -> float:
        """What each chip sends where the group is a ring: the least that any algorithm can do with."""
        others = self.group_size - 1
        per_result_byte = {
            "all-reduce": 2 * others / self.group_size,
            "all-gather": others / self.group_size,
            "reduce-scatter": others,
            "all-to-all": others / self.group_size,
            "collective-permute": 1,
        }
        return self.num_bytes * per_result_byte[self.kind]


def find_collectives(program: str, num_chips: int) -> list[Collective]:
    """The collectives in the text of a compiled program; one inside of a loop is listed once."""
    found = []
    for line in program.splitlines():
        instruction = _INSTRUCTION.match(line)
        if instruction is None:
            continue
        shape, kind, start = instruction.group("shape", "kind", "start")
        arrays = [_array_bytes(*array) for array in _ARRAY.findall(shape)]
        if start and kind != "all-reduce":
            arrays = _results_of_start(arrays)
        found.append(Collective(kind, sum(arrays), _group_size(line, num_chips)))
    return found


def describe(collectives: Sequence[Collective]) -> str:
    """How many of each kind: "2 all-reduce, 1 all-gather"."""
    counts = {kind: sum(each.kind == kind for each in collectives) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none"


def _array_bytes(dtype: str, dimensions: str) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return math.prod(int(side) for side in dimensions.split(",") if side) * bits // 8


def _results_of_start(arrays: list[int]) -> list[int]:
    """The start of an asynchronous collective gives operands, results and, at times, two counters of four bytes."""
    if len(arrays) > 2 and len(arrays) % 2 == 0 and arrays[-2:] == [4, 4]:
        arrays = arrays[:-2]
    return arrays[len(arrays) // 2 :]


def _group_size(line: str, num_chips: int) -> int:
    if counted := _GROUPS_COUNTED.search(line):
        return int(counted[2])
    if listed := _GROUPS_LISTED.search(line):
        return len(listed[1].split(","))
    return num_chips
