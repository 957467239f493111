"""The largest number that passes a test, in few trials."""

from collections.abc import Callable


def largest_fit(fits: Callable[[int], bool], start: int, limit: int) -> int:
    """The largest n in [1, limit] for which `fits(n)`, 0 where none; by doubling from `start`, then bisection.

    Whatever is smaller than a number that fits must fit too.
    """
    fitting, failing = 0, limit + 1
    trial = min(start, limit)
    while failing - fitting > 1:
        if fits(trial):
            fitting = trial
        else:
            failing = trial
        trial = min(2 * fitting, limit) if failing > limit else (fitting + failing) // 2
    return fitting
