"""Reference values for the tests: golden arrays, and the weights that they were computed with."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from yolox_jax.models import yolox
from yolox_jax.tools.selfcheck import reference
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


MODELS = tuple(json.loads((GOLDEN / "models.json").read_text()))  # yolox.VARIANTS has the tests' own networks too


def golden_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Maps the names of the reference's state dict to shapes."""
    models = json.loads((GOLDEN / "models.json").read_text())
    return {name: tuple(shape) for name, shape in models[model]["state_dict"].items()}


golden_state_dict = reference.state_dict  # from shapes: the weights that all golden arrays were computed with


def nano_of_seven_classes() -> tuple[yolox.YOLOX, official.Variables]:
    """The model of losses.npz and trajectory.npz, with the weights that they were computed with."""
    shapes = golden_shapes("nano")
    shapes = {name: (7, *shape[1:]) if "cls_preds" in name else shape for name, shape in shapes.items()}
    model = yolox.create("nano", 7)
    return model, official.from_state_dict(golden_state_dict(shapes), model)
