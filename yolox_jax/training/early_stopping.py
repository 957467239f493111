"""When a run has stopped getting better."""

from collections.abc import Mapping


def has_stalled(ap_by_step: Mapping[int, float], patience: int | None, step: int) -> bool:
    """Whether, up to `step`, the last `patience` evaluations were all no better than one before them; None: never.

    Depends on the recorded APs alone, so that a run that goes on answers as the one left alone.
    """
    if patience is None:
        return False
    aps = [ap for evaluated, ap in sorted(ap_by_step.items()) if evaluated <= step]
    return len(aps) > patience and max(aps[-patience:]) <= max(aps[:-patience])
