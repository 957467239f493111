"""Parses the text of a compiled program (HLO) into instructions and their arrays."""

import dataclasses
import math
import re

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) .*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>.*?) "
    r"(?P<opcode>[a-z][\w-]*)\((?P<operands>[^()]*)\)(?P<rest>.*)$"
)
_ARRAY = re.compile(r"\b(?P<dtype>pred|[a-z]+\d+)(?:e\dm\d\w*)?\[(?P<sides>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")
_NAME = re.compile(r"%([\w.-]+)")
_TILE = re.compile(r"T\(([\d,]+)\)")
_CALLED = re.compile(r"\b(?:body|calls|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """Type, size and place of one array."""

    dtype: str  # such as "bf16"
    sides: tuple[int, ...]
    minor_to_major: tuple[int, ...]  # the axes as they lie in memory; empty if the text does not say
    num_bytes: int
    laid_out_bytes: int  # including the padding of its tiles on a TPU
    in_hbm: bool  # False: in on-chip memory


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # the result; several if it is a tuple
    operands: tuple[str, ...]  # names of other instructions
    attributes: str  # the rest of the line
    argument: str = ""  # what is between the brackets: the number of a parameter
    is_root: bool = False  # its computation's result

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in the attributes; empty if it is not there."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""

    def called(self) -> list[str]:
        """Names of the computations that this instruction runs."""
        branches = _BRANCHES.search(self.attributes)
        names = [name.strip().lstrip("%") for name in branches[1].split(",")] if branches else []
        return _CALLED.findall(self.attributes) + names


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations by name. The program starts at `entry`."""

    computations: dict[str, list[Instruction]]
    entry: str


def parse(text: str) -> Program:
    """Parses `compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = None, ""
    for line in text.splitlines():
        if instruction := _INSTRUCTION.match(line):
            computations[current].append(_instruction(instruction))
        elif computation := _COMPUTATION.match(line):
            current = computation["name"]
            computations[current] = []
            entry = current if computation["entry"] else entry
    if entry is None:
        raise ValueError("the text of the compiled program has no ENTRY computation")
    return Program(computations, entry)


def _instruction(match: re.Match[str]) -> Instruction:
    operands = tuple(_NAME.findall(match["operands"]))
    arrays = tuple(_array(array) for array in _ARRAY.finditer(match["shape"]))
    return Instruction(
        match["name"], match["opcode"], arrays, operands, match["rest"], match["operands"], match["root"] is not None
    )


def _array(match: re.Match[str]) -> Array:
    bits = 8 if match["dtype"] == "pred" else int(re.sub(r"\D", "", match["dtype"]))
    sides = [int(side) for side in match["sides"].split(",") if side]
    layout = match["layout"] or ""
    return Array(
        dtype=match["dtype"],
        sides=tuple(sides),
        minor_to_major=_axes(layout),
        num_bytes=math.prod(sides) * bits // 8,
        laid_out_bytes=math.prod(_padded(sides, layout)) * bits // 8,
        in_hbm="S(" not in layout,  # S(1) is vector memory on the chip, S(2) scalar memory
    )


def _padded(sides: list[int], layout: str) -> list[int]:
    """Sides from minor to major, rounded up to whole tiles: [3, 5] with layout {1,0:T(8,128)} becomes [128, 8]."""
    order = _axes(layout)
    tile = _TILE.search(layout)
    if tile is None or len(order) != len(sides):
        return sides
    minor_first = [sides[axis] for axis in order]
    steps = [int(step) for step in reversed(tile[1].split(","))][: len(sides)]
    rounded = [-(-side // step) * step for side, step in zip(minor_first, steps, strict=False)]
    return rounded + minor_first[len(steps) :]


def _axes(layout: str) -> tuple[int, ...]:
    return tuple(int(axis) for axis in layout.partition(":")[0].split(",") if axis.isdecimal())
