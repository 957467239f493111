"""YOLOX, the anchor-free object detector (arXiv 2107.08430), in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolox_jax.inference.detector import Detector
    from yolox_jax.run.from_python import evaluate, train

__all__ = ["Detector", "__version__", "evaluate", "train"]

__version__ = "0.1.0"

_MODULES = {
    "Detector": "yolox_jax.inference.detector",
    "evaluate": "yolox_jax.run.from_python",
    "train": "yolox_jax.run.from_python",
}


def __getattr__(name: str) -> Any:
    """Imports these names, and JAX with them, on first use, so that `import yolox_jax` alone is fast."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
