"""YOLOX, the anchor-free object detector (arXiv 2107.08430), in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolox_jax.inference.detector import Detector

__all__ = ["Detector", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports Detector, and JAX with it, on first use, so that `import yolox_jax` alone is fast."""
    if name == "Detector":
        from yolox_jax.inference.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
