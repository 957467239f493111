"""YOLOX, the anchor-free object detector (arXiv 2107.08430), in JAX and Flax."""

__version__ = "0.1.0"
