"""Lists the checkpoints of a run: python -m yolox_jax.tools.checkpoints WORKDIR [--verify]

A line has the step, the AP if it was evaluated, the size, the mesh that wrote it (devices, or processes x devices),
whether it is the best by AP, and whether it is complete. --verify reads every file and compares it with the manifest of
its checkpoint; the exit code is 1 if one is damaged.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from yolox_jax import storage
from yolox_jax.cli.terminal import parse_flags, quiet_libraries, user_errors
from yolox_jax.errors import NotFoundError
from yolox_jax.weights import checkpoint
from yolox_jax.weights.checkpoint import Listed

_VERIFY = flags.DEFINE_boolean("verify", False, "Read every file and compare it with the manifest.")


def table(listed: Sequence[Listed]) -> str:
    """Formats one line for each checkpoint."""
    aps = {each.step: each.ap for each in listed if each.ap is not None}
    best = checkpoint.best_step(aps, aps)
    lines = [f"{'step':>8}  {'AP':>7}  {'MB':>7}  {'mesh':>7}  state"]
    for each in listed:
        ap = "" if each.ap is None else f"{each.ap:.4f}"
        marks = "best, " if each.ap is not None and each.step == best else ""
        lines.append(f"{each.step:>8}  {ap:>7}  {each.num_bytes / 1e6:>7.1f}  {each.mesh:>7}  {marks}{each.condition}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise app.UsageError("give the directory of one run")
    quiet_libraries()
    with user_errors():
        listed = checkpoint.list_checkpoints(storage.resolve(argv[1]), _VERIFY.value)
        if not listed:
            raise NotFoundError(f"{argv[1]} has no checkpoints", "give the directory of a run")
        print(table(listed))
    sys.exit(1 if _VERIFY.value and any(each.is_damaged for each in listed) else 0)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
