"""Imports the official PyTorch YOLOX from a checkout, for benchmarks to compare with."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from yolox_jax.boxes import xyxy_to_cxcywh, xyxy_to_xywh
from yolox_jax.models import yolox
from yolox_jax.weights import official


class Official:
    """The modules of a checkout of the official code, and its models with our weights. Importing it needs PyTorch."""

    def __init__(self, checkout: Path, threads: int) -> None:
        if not (checkout / "yolox" / "models").is_dir():
            raise SystemExit(f"--peer={checkout} has no folder yolox/models: give a checkout of the official YOLOX")
        sys.path.insert(0, str(checkout))
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        if importlib.util.find_spec("torchvision") is None:
            sys.modules["torchvision"] = self._only_nms()
        self.utils = importlib.import_module("yolox.utils")
        self._exp = importlib.import_module("yolox.exp")
        self.device = "cuda" if self.torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"

    def create(self, name: str, variables: Any) -> tuple[Any, Any]:
        """Creates the official experiment for model `name` with 80 classes, and its network with our variables."""
        exp = self._exp.get_exp(exp_name=f"yolox-{name}")
        model = exp.get_model()
        state_dict = official.to_state_dict(variables, yolox.create(name))
        model.load_state_dict({key: self.torch.from_numpy(np.array(array)) for key, array in state_dict.items()})
        return exp, model

    def images(self, images_BHW3: np.ndarray) -> Any:
        """Converts a batch to the format of the official loaders: float32 [B, 3, H, W]."""
        return self.torch.from_numpy(images_BHW3.transpose(0, 3, 1, 2).astype(np.float32, order="C"))

    def targets(self, boxes_xyxy_BG4: np.ndarray, label_BG: np.ndarray, mask_BG: np.ndarray) -> Any:
        """Converts boxes to the official format: [B, G, 5] of label, center and size; padding slots last, and zero."""
        boxes_cxcywh_BG4 = xyxy_to_cxcywh(boxes_xyxy_BG4)
        target_BG5 = np.concatenate([label_BG[..., None], boxes_cxcywh_BG4], axis=2).astype(np.float32)
        return self.torch.from_numpy(target_BG5 * mask_BG[..., None])

    def _only_nms(self) -> types.ModuleType:
        """Replaces torchvision if it is not installed: the official code needs only its NMS, which OpenCV has too."""

        def batched_nms(boxes: Any, scores: Any, labels: Any, iou: float) -> Any:
            rectangles: Any = xyxy_to_xywh(boxes.numpy())
            kept = cv2.dnn.NMSBoxesBatched(rectangles, scores.numpy(), labels.numpy().astype(np.int32), 0.0, iou)
            return self.torch.from_numpy(np.asarray(kept, np.int64))

        torchvision: Any = types.ModuleType("torchvision")
        torchvision.ops = types.SimpleNamespace(batched_nms=batched_nms)
        return torchvision
