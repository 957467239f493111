"""Lists the checkpoints of a run: python -m yolox_jax.tools.checkpoints WORKDIR

A line has the step, the AP if it was evaluated, the size, the mesh that wrote it (devices, or processes x devices),
whether it is the best by AP, and whether it is complete.
"""

from pathlib import Path

from absl import app

from yolox_jax.cli.terminal import quiet_libraries, user_errors
from yolox_jax.errors import NotFoundError
from yolox_jax.weights import checkpoint


def table(workdir: Path) -> str:
    """Formats one line for each checkpoint, the oldest first.

    Raises:
      NotFoundError: the directory has none.
    """
    listed = checkpoint.list_checkpoints(workdir)
    if not listed:
        raise NotFoundError(f"{workdir} has no checkpoints", "give the directory of a run")
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
        print(table(Path(argv[1])))


if __name__ == "__main__":
    app.run(main)
