"""Adds decoding and NMS as ONNX operators, which give the same detections as detection/postprocess.py.

One exception: ONNX drops a box whose score is exactly the threshold, which passes there.
"""

import numpy as np

from yolox_jax.inference.export.onnx_graph import Graph
from yolox_jax.inference.predict import DetectConfig
from yolox_jax.types import Anchors


def add_detections(
    graph: Graph, output_BAR: str, anchors: Anchors, num_classes: int, config: DetectConfig
) -> tuple[str, str, str, str]:
    """Adds the nodes from the network's output [B, A, 5 + C] to boxes [B, D, 4] xyxy, scores, labels and mask [B, D].

    Best score first; D is the smallest of max_detections, num_candidates and A.
    """
    num_anchors = len(anchors.strides)
    num_candidates = min(config.num_candidates, num_anchors)
    num_slots = min(config.max_detections, num_candidates)

    xy, wh, obj, cls_BAC = graph.add("Split", output_BAR, graph.constant([2, 2, 1, num_classes]), num_outputs=4, axis=2)
    stride_A1 = np.asarray(anchors.strides, np.float32)[:, None]
    index_A2 = graph.constant(np.asarray(anchors.centers) / stride_A1 - np.float32(0.5))
    center = graph.add("Mul", graph.add("Add", xy, index_A2), graph.constant(stride_A1))
    half_size = graph.add("Mul", graph.add("Exp", wh), graph.constant(stride_A1 / 2))
    corners = graph.add("Sub", center, half_size), graph.add("Add", center, half_size)
    box_BA4 = graph.add("Concat", *corners, axis=2)

    # The N best anchors, each with its best class.
    best_BA1 = graph.add("Mul", obj, graph.add("ReduceMax", cls_BAC, axes=[2], keepdims=1))
    score_BN, index_BN = _top(graph, graph.add("Squeeze", best_BA1, graph.constant([2])), num_candidates)
    box_BN4 = _rows(graph, box_BA4, index_BN)
    label_BN = graph.add("ArgMax", _rows(graph, cls_BAC, index_BN), axis=2, keepdims=0)

    # NonMaxSuppression takes a score for every class: 0 for all but the best one. It keeps only scores above conf.
    depth, off_and_on = graph.constant(np.array(num_classes, np.int64)), graph.constant([0.0, 1.0])
    is_class_BCN = graph.add("OneHot", label_BN, depth, off_and_on, axis=1)
    score_BCN = graph.add("Mul", is_class_BCN, graph.add("Unsqueeze", score_BN, graph.constant([1])))
    limits = graph.constant([num_candidates]), graph.constant([config.iou]), graph.constant([config.conf])
    kept_K3 = graph.add("NonMaxSuppression", box_BN4, score_BCN, *limits)  # image, class, candidate

    # Back from the list of the K kept boxes to D slots per image: scores of suppressed boxes become 0.
    place_K2 = graph.add("Gather", kept_K3, graph.constant([0, 2]), axis=1)
    one = graph.constant([1.0])
    ones_K = graph.add("Expand", one, graph.add("Shape", place_K2, start=0, end=1))
    zeros_BN = graph.add("Mul", score_BN, graph.constant([0.0]))
    keep_BN = graph.add("ScatterND", zeros_BN, place_K2, ones_K)
    score_BD, slot_BD = _top(graph, graph.add("Mul", score_BN, keep_BN), num_slots)
    box_BD4 = _rows(graph, box_BN4, slot_BD)
    label_BD = graph.add("Cast", graph.add("GatherElements", label_BN, slot_BD, axis=1), to=6)  # int32
    mask_BD = graph.add("Greater", score_BD, graph.constant([0.0]))
    return box_BD4, score_BD, label_BD, mask_BD


def _top(graph: Graph, score: str, count: int) -> tuple[str, str]:
    """Returns the `count` best scores of each row, and their indices."""
    return graph.add("TopK", score, graph.constant([count]), num_outputs=2, axis=1)


def _rows(graph: Graph, values: str, index: str) -> str:
    """Returns values[b, index[b, i]] at [b, i]."""
    return graph.add("GatherND", values, graph.add("Unsqueeze", index, graph.constant([2])), batch_dims=1)
