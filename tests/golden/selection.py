"""Writes the golden arrays that yolox_jax.tools.selfcheck compares a device with: python -m tests.golden.selection

A test holds the file equal to the arrays here.
"""

import numpy as np

from tests.material import golden
from yolox_jax.tools.selfcheck import reference

ASSIGN_CASES = ("07_duplicate_256x256_g6_c3", "12_random_256x256_g7_c1", "13_edge_96x96_g3_c2")


def selected() -> dict[str, np.ndarray]:
    """The arrays of the file: a part of models.npz, assign.npz and trajectory.npz."""
    models, assign, trajectory = (golden(name) for name in ("models", "assign", "trajectory"))
    cases = {f"assign/{key}": value for key, value in assign.items() if key.startswith(ASSIGN_CASES)}
    return {
        "models/images_nchw": models["images_nchw"],
        **{f"models/{name}/raw": models[f"{name}/raw"] for name in ("nano", "s")},
        **cases,
        "trajectory/images": trajectory["images/0"],
        "trajectory/labels": trajectory["labels/0"],
        "trajectory/loss": trajectory["loss"][:1],
        "trajectory/num_fg": trajectory["num_fg"][:1],
    }


if __name__ == "__main__":
    np.savez_compressed(reference.FILE, **selected())
