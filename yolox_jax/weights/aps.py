"""ap.json, in the folder of a run's checkpoints: the AP of each step that was evaluated."""

from collections.abc import Collection, Mapping

from yolox_jax import storage
from yolox_jax.errors import NotFoundError
from yolox_jax.storage import Location
from yolox_jax.weights import strict_json
from yolox_jax.weights.bucket_copy import is_step
from yolox_jax.weights.meta import CheckpointError
from yolox_jax.weights.strict_json import FieldError, shown

NAME = "ap.json"
_MOST_MB = 16
_HIGHEST = 1 + 1e-9  # of sums that are rounded
_NO_BOXES = -1  # the AP of COCO where there is no box to be found


def best_step(aps: Mapping[int, float], steps: Collection[int]) -> int | None:
    """Returns the step with the highest AP, the latest of equal ones; None if none of `steps` was evaluated."""
    return max((step for step in steps if step in aps), key=lambda step: (aps[step], step), default=None)


def read_aps(folder: Location) -> dict[int, float]:
    """Reads ap.json in a folder of checkpoints; empty if there is none.

    Raises:
      CheckpointError: the file is damaged.
    """
    file = folder / NAME
    try:
        return _parse(storage.read_bytes(file, most_mb=_MOST_MB))
    except NotFoundError:
        return {}
    except (FieldError, OSError) as error:  # a bucket's refusal is no damage of the file, and raised as it is
        what = (isinstance(error, OSError) and error.strerror) or error
        raise CheckpointError(f"{file}: {what}", "the next start of the run sets it aside") from error


def _parse(data: bytes) -> dict[int, float]:
    content = strict_json.parse(data)
    if not isinstance(content, dict):
        raise FieldError(f"is {shown(content)}, not an object of one AP for each step")
    for step, ap in content.items():
        if not is_step(step):
            raise FieldError(f"has the step {shown(step)}")
        if type(ap) not in (int, float) or not (ap == _NO_BOXES or 0 <= ap <= _HIGHEST):
            raise FieldError(f"has the AP {shown(ap)} for step {step}")
    return {int(step): float(ap) for step, ap in content.items()}
