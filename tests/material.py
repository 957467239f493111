"""Reference values for the tests: golden arrays, and the weights that they were computed with."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from yolox_jax.models import yolox
from yolox_jax.weights import official

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
# Official weights and photographs are not in the repository (licenses, size); without them, some tests are skipped.
_MATERIAL = os.environ.get("YOLOX_JAX_MATERIAL", "")


def material(relative: str) -> Path:
    """A file or folder that is not part of the repository; skips the test if it is missing."""
    path = Path(_MATERIAL) / relative
    if not _MATERIAL or not path.exists():
        pytest.skip(
            f"needs {relative}, which is not in the repository: set YOLOX_JAX_MATERIAL to its folder (is {_MATERIAL!r})"
        )
    return path


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of tests/golden/<name>.npz, computed by the reference."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def golden_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Maps the names of the reference's state dict to shapes."""
    models = json.loads((GOLDEN / "models.json").read_text())
    return {name: tuple(shape) for name, shape in models[model]["state_dict"].items()}


def golden_state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights that all golden arrays were computed with: each tensor is drawn with its name as the seed."""
    return {name: _golden_tensor(name, shape) for name, shape in shapes.items()}


def _golden_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith("bn.weight") or (len(shape) == 1 and name.endswith("weight")):
        value = rng.uniform(0.5, 1.5, shape)
    elif ("cls_preds" in name or "obj_preds" in name) and name.endswith("bias"):
        value = -4.6 + 0.1 * rng.standard_normal(shape)
    elif name.endswith("bias"):
        value = 0.1 * rng.standard_normal(shape)
    else:
        gain = 1.0
        if "_preds" in name:
            gain = 0.3
        elif name in ("backbone.backbone.stem.conv.conv.weight", "backbone.backbone.stem.0.conv.weight"):
            gain = 0.01
        value = gain / np.sqrt(np.prod(shape[1:])) * rng.standard_normal(shape)
    return np.asarray(value, np.float32)


def nano_of_seven_classes() -> tuple[yolox.YOLOX, official.Variables]:
    """The model of losses.npz and trajectory.npz, with the weights that they were computed with."""
    shapes = golden_shapes("nano")
    shapes = {name: (7, *shape[1:]) if "cls_preds" in name else shape for name, shape in shapes.items()}
    model = yolox.create("nano", 7)
    return model, official.from_state_dict(golden_state_dict(shapes), model)
