"""The numbers of several runs that differ in their seed, as a table with mean and standard error."""

from collections.abc import Mapping

import numpy as np

from yolox_jax.evaluation.ap_result import UNDEFINED, ApResult


def seed_table(results: Mapping[int, ApResult]) -> str:
    """Formats the numbers of the metric in percent: one column for each seed, then the mean and its standard error.

    A number that is undefined in one of the runs has no mean.
    """
    names = list(next(iter(results.values())).stats)
    width = max(map(len, names))
    lines = [f"{'':<{width}} {''.join(f'  seed {seed:<4}' for seed in results)}  mean ± standard error"]
    for name in names:
        values = np.array([result.stats[name] for result in results.values()])
        cells = "".join(f"  {'-' if value == UNDEFINED else f'{100 * value:.1f}':>9}" for value in values)
        error = values.std(ddof=1) / np.sqrt(len(values))
        mean = "-" if UNDEFINED in values else f"{100 * values.mean():.2f} ± {100 * error:.2f}"
        lines.append(f"{name:<{width}} {cells}  {mean:>21}")
    return "\n".join(lines)
