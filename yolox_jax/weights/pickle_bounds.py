"""Bounds what a pickle may build, from its instructions alone and before any of it is run.

Instructions may name the same object again, so a few hundred bytes can describe a tuple of 2**100 entries: hashing,
comparing or showing it never ends. Others allocate by a number that the file states, such as 64 GB for one index.
"""

import pickletools
from collections.abc import Sequence

_MOST_DEPTH = 50  # an official file has 8
_MOST_OBJECTS = 10_000_000  # counted with repetitions; an official file with its optimizer has 100,000
_PUT = ("PUT", "BINPUT", "LONG_BINPUT")
_GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS")
_GET = ("GET", "BINGET", "LONG_BINGET")

# An entry of the stack: the number of objects in it, repetitions included, and their depth; None is a mark.
_Entry = tuple[int, int] | None


def check_bounds(pickled: bytes) -> None:
    """Checks the size and depth of all that the instructions build, and the lengths and indices that they state.

    A list or dict that grows after it was put into another is counted as it was: only tuples, which cannot, are hashed.

    Raises:
      ValueError: a bound is exceeded, or the pickle is damaged.
    """
    stack: list[_Entry] = []
    memo: dict[int, _Entry] = {}
    for number, (instruction, argument, _) in enumerate(pickletools.genops(pickled)):
        name = instruction.name
        if name in _PUT or name == "MEMOIZE":
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            if index > number:  # Python makes room for every index below
                raise ValueError(f"it gives an object the number {index} after {number} instructions")
            memo[index] = _top(stack)
        elif name in _GET:
            if argument not in memo:
                raise ValueError(f"it refers to object {argument}, which it does not have")
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(_top(stack))
        elif name == "MARK":
            stack.append(None)
        else:
            taken = _take(stack, [each.name for each in instruction.stack_before])
            if instruction.stack_after:
                stack.append(_made(taken, grows=name in _GROWING))


def _made(parts: Sequence[tuple[int, int]], *, grows: bool) -> tuple[int, int]:
    """Returns the size and depth of what an instruction makes of these; the first of them grows, or all are in it."""
    size = sum(size for size, _ in parts) + (not grows)
    depths = [depth for _, depth in parts]
    depth = max(depths[0], 1 + max(depths[1:], default=0)) if grows else 1 + max(depths, default=0)
    if size > _MOST_OBJECTS or depth > _MOST_DEPTH:
        raise ValueError(f"it nests {depth} objects, {size} in all, which no checkpoint does")
    return size, depth


def _top(stack: Sequence[_Entry]) -> _Entry:
    if not stack:
        raise ValueError("it takes an object that it does not have")
    return stack[-1]


def _take(stack: list[_Entry], wanted: list[str]) -> list[tuple[int, int]]:
    """Removes what an instruction takes from the stack, and returns it, the lowest first."""
    taken: list[tuple[int, int]] = []
    below = len(wanted)
    if "mark" in wanted:
        below = wanted.index("mark")
        while (entry := _pop(stack)) is not None:
            taken.append(entry)
    for _ in range(below):
        entry = _pop(stack)
        if entry is None:
            raise ValueError("it takes a mark for an object")
        taken.append(entry)
    return taken[::-1]


def _pop(stack: list[_Entry]) -> _Entry:
    if not stack:
        raise ValueError("it takes an object that it does not have")
    return stack.pop()
