"""Lists of class names: repeated names are merged or refused, and the difference of two lists is described."""

import collections
from collections.abc import Sequence

from yolox_jax.data.sources import problems
from yolox_jax.data.sources.documents import shortened
from yolox_jax.errors import UserError
from yolox_jax.types import Problem

_NUM_SHOWN, _LONGEST_SHOWN = 5, 100


def merge(names: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Returns the different names, in the order in which they first occur, and the index among these of each name.

    Names that differ only by spaces around them are the same; the first one stays as it is written.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.strip(), name)
    label_of = {bare: label for label, bare in enumerate(first)}
    return tuple(first.values()), [label_of[name.strip()] for name in names]


def check_different(names: Sequence[str], ids: Sequence[int], file: str, *, may_be_alike: bool) -> list[Problem]:
    """Checks that no two classes have the same name; if they may, for the doctor, returns a problem for each such name.

    Raises:
      UserError: two have the same name, or names that differ only by spaces around them; names both ids.
    """
    found = []
    classes: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for id, name in zip(ids, names, strict=True):
        classes[name.strip()].append((id, name))
    for bare, alike in classes.items():
        if len(alike) > 1:
            which = f"{' and '.join(str(id) for id, _ in alike)} are both called {shortened(bare)}"
            if len({name for _, name in alike}) > 1:
                which += ", but for spaces around it"
            if not may_be_alike:
                raise UserError(
                    f"{file}: the classes {which}",
                    "rename one of them, or set --config.data.merge_same_names=true to make them one class",
                )
            found.append(Problem(problems.SAME_NAME, file, "classes", which, "counted as one class here"))
    return found


def difference(one: Sequence[str], other: Sequence[str], name_one: str, name_other: str) -> str:
    """Describes how two different lists of names differ: names of only one list, or the first place that differs."""
    only_one, only_other = ([name for name in a if name not in set(b)] for a, b in ((one, other), (other, one)))
    parts = [
        f"only in {where}: {_shown(only)}" for where, only in ((name_one, only_one), (name_other, only_other)) if only
    ]
    if parts:
        return "; ".join(parts)
    place = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return f"class {place} is {_short(one[place])} in {name_one} and {_short(other[place])} in {name_other}"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(_short, names[:_NUM_SHOWN])) + (
        f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    )


def _short(name: str) -> str:
    short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"
    return short if name == name.strip() and name.isprintable() else repr(short)  # or two would look the same
