"""Builds a detector as a LiteRT file, without NMS, and runs it."""

import json

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from yolox_jax.detection.anchors import make_anchors
from yolox_jax.inference.export.litert_graph import Graph
from yolox_jax.inference.export.litert_network import add_network
from yolox_jax.inference.export.official_network import folded_tensors
from yolox_jax.inference.pretrained import Pretrained


def detecting_model(
    loaded: Pretrained, size_hw: tuple[int, int], batch: int = 1, input_dtype: str = "uint8", **metadata: str
) -> bytes:
    """Builds a model of the network and its decoding.

    images [B, H, W, 3] BGR 0..255, uint8 or float32, letterboxed -> boxes [B, A, 4] xyxy in input pixels, and scores
    [B, A, C]. The file has the texts of `metadata`, and the names of the classes.
    """
    graph = Graph()
    shape = (batch, *size_hw, 3)
    if input_dtype == "uint8":
        options = schema.CastOptionsT(schema.TensorType.UINT8, schema.TensorType.FLOAT32)
        images = graph.add("CAST", graph.input("images", np.uint8, shape), shape=shape, options=options)
    else:
        images = graph.input("images", np.float32, shape)
    boxes_BA4, scores_BAC = add_network(graph, folded_tensors(loaded), images, make_anchors(size_hw))
    metadata["class_names"] = json.dumps(loaded.class_names)
    return graph.model({"boxes": boxes_BA4, "scores": scores_BAC}, metadata)


def read_metadata(model: bytes) -> dict[str, str]:
    """Returns the texts that a file was given."""
    content = schema.ModelT.InitFromPackedBuf(model)
    return {each.name.decode(): bytes(content.buffers[each.buffer].data).decode() for each in content.metadata or ()}


class LiteRTRunner:
    """A file in the runtime, as a function of images [B, H, W, 3] uint8 to boxes [B, A, 4] and scores [B, A, C]."""

    def __init__(self, model: bytes, num_threads: int | None = None):
        self._interpreter = Interpreter(model_content=model, num_threads=num_threads)
        self._interpreter.allocate_tensors()
        (images,) = self._interpreter.get_input_details()
        self.batch = int(images["shape"][0])  # B
        self._dtype = images["dtype"]
        self._signature = self._interpreter.get_signature_runner()

    def __call__(self, images_BHW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = self._signature(images=images_BHW3.astype(self._dtype))
        return found["boxes"], found["scores"]
