"""What counting average precision gives, whichever way it is counted."""

import dataclasses
from typing import Any, NamedTuple

UNDEFINED = -1.0  # COCO's mark where there is no box to find
_TABLE_COLUMNS = 3
_MAX_NAME_WIDTH = 20


class ClassAp(NamedTuple):
    """AP and AP50 in [0, 1], UNDEFINED for a class without boxes; crowds do not count as boxes."""

    name: str
    AP: float
    AP50: float
    num_boxes: int


@dataclasses.dataclass(frozen=True)
class ApResult:
    """Numbers in [0, 1] or UNDEFINED by name, AP and AP50 among them, and every class in the order of its label."""

    stats: dict[str, float]
    per_class: tuple[ClassAp, ...]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {**self.stats, "per_class": [of_class._asdict() for of_class in self.per_class]}

    def table(self) -> str:
        """The numbers in two lines and the classes' APs, in percent, as text for a person."""
        names, values = list(self.stats), [_percent(value) for value in self.stats.values()]
        half = -(-len(names) // 2)
        lines = [
            "  ".join(f"{name:>9} {value:>5}" for name, value in zip(names[part], values[part], strict=True))
            for part in (slice(half), slice(half, None))
        ]
        width = max([len("class"), *(len(of_class.name) for of_class in self.per_class)])
        width = min(width, _MAX_NAME_WIDTH)
        columns = min(_TABLE_COLUMNS, len(self.per_class))
        cells = [f"{'class':<{width}} {'AP':>5} {'AP50':>5} {'boxes':>6}"] * columns
        for of_class in self.per_class:
            numbers = f"{_percent(of_class.AP):>5} {_percent(of_class.AP50):>5} {of_class.num_boxes:>6}"
            cells.append(f"{of_class.name[:width]:<{width}} {numbers}")
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns or 1)]
        return "\n".join([*lines, "", *("   ".join(row) for row in rows)])


def _percent(value: float) -> str:
    return "-" if value == UNDEFINED else f"{100 * value:.1f}"
