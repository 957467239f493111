"""Finds the classes of a data set among those that weights were trained on, by name."""

import logging
from collections.abc import Sequence

from yolox_jax.errors import UserError
from yolox_jax.weights.coco_names import COCO_NAMES

Rows = tuple[int | None, ...]  # for each class of the data set, its label in the weights; None if they lack it

_ADVICE = "choose weights or data that match; train.py with --config.init_from adapts weights of other classes"
_MAX_NAMED = 10

_log = logging.getLogger("yolox_jax.weights")


def find_rows(source: str, theirs: tuple[str, ...] | int, ours: tuple[str, ...], *, transfer: bool) -> Rows:
    """Returns the label in the weights for each of our classes, and warns unless they are our classes in our order.

    If no class has moved but some have other names, as after a translation, these are matched by place.

    Args:
      source: the weights, for messages.
      theirs: the class names that the weights state, or, for a file without names, only their number: 80 are taken to
        be COCO's, any other number as many as ours to be ours.
      ours: the class names of the data set.
      transfer: accept other classes; those that the weights lack get None.

    Raises:
      UserError: the classes differ in more than their order, and `transfer` is off.
    """
    are_stated = not isinstance(theirs, int)
    if isinstance(theirs, int):
        if theirs != len(COCO_NAMES):
            return _rows_of_unknown(source, theirs, ours, transfer)
        theirs = COCO_NAMES
    rows = _match(theirs, ours)
    lacking = [name for name, row in zip(ours, rows, strict=True) if row is None]
    if set(rows) == set(range(len(theirs))) and len(ours) == len(theirs):
        if rows != tuple(range(len(theirs))):
            _log.warning("%s has the data set's classes in another order: they are matched by name", source)
        return rows
    in_place = len(ours) == len(theirs) and all(row in (None, label) for label, row in enumerate(rows))
    if not transfer and (are_stated or not in_place):
        unused = [name for label, name in enumerate(theirs) if label not in rows]
        raise UserError(
            f"{source} {'was trained on' if are_stated else 'is taken to predict'} {_counted(theirs)}; the data set "
            f"has {_counted(ours)}; only in the data set: {_listed(lacking)}; only in the weights: {_listed(unused)}",
            _ADVICE,
        )
    if in_place:
        pairs = [f"{theirs[label]} becomes {ours[label]}" for label, row in enumerate(rows) if row is None]
        _log.warning("%s: %d classes have other names and are matched by place: %s", source, len(pairs), _listed(pairs))
        return tuple(range(len(ours)))
    _log.warning(
        "%s has %d of the data set's %d classes by name; the others start anew: %s",
        *(source, len(ours) - len(lacking), len(ours), _listed(lacking)),
    )
    return rows


def _rows_of_unknown(source: str, num_theirs: int, ours: tuple[str, ...], transfer: bool) -> Rows:
    if num_theirs == len(ours):
        _log.warning("%s does not name its %d classes: they are matched by place", source, num_theirs)
        return tuple(range(num_theirs))
    if not transfer:
        raise UserError(f"{source} predicts {num_theirs} classes; the data set has {_counted(ours)}", _ADVICE)
    _log.warning("%s does not name its %d classes: all of the data set's %d start anew", source, num_theirs, len(ours))
    return (None,) * len(ours)


def _match(theirs: Sequence[str], ours: Sequence[str]) -> Rows:
    both = theirs, ours
    key = _plain if all(len(set(map(_plain, names))) == len(names) for names in both) else str
    label_of = {key(name): label for label, name in enumerate(theirs)}
    return tuple(label_of.get(key(name)) for name in ours)


def _plain(name: str) -> str:
    """Spells a name as other tools may have: "Traffic_Light" as "traffic light"."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _counted(names: Sequence[str]) -> str:
    return f"the {len(names)} classes {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def _listed(texts: Sequence[str]) -> str:
    rest = len(texts) - _MAX_NAMED
    return ", ".join(texts[:_MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "") if texts else "none"
