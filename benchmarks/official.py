"""The official PyTorch YOLOX, from a checkout given by path, as a benchmark's peer; PyTorch is imported only here."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolox_jax.models import yolox
from yolox_jax.weights import official


class Official:
    """The peer's modules, and its models with our weights."""

    def __init__(self, checkout: Path, threads: int) -> None:
        if not (checkout / "yolox" / "models").is_dir():
            raise SystemExit(f"--peer={checkout} is no checkout of the official YOLOX: it has no yolox/models")
        sys.path.insert(0, str(checkout))
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        if importlib.util.find_spec("torchvision") is None:
            sys.modules["torchvision"] = self._only_nms()
        self.utils = importlib.import_module("yolox.utils")
        self._exp = importlib.import_module("yolox.exp")

    @property
    def version(self) -> str:
        return f"torch {self.torch.__version__}"

    def create(self, name: str, variables: Any) -> tuple[Any, Any]:
        """Its experiment for our model `name` of 80 classes, and that experiment's network with our variables."""
        exp = self._exp.get_exp(exp_name=f"yolox-{name}")
        model = exp.get_model()
        state_dict = official.to_state_dict(variables, yolox.create(name))
        model.load_state_dict({key: self.torch.from_numpy(np.array(array)) for key, array in state_dict.items()})
        return exp, model

    def images(self, images_BHW3: np.ndarray) -> Any:
        """A batch as its loaders hand it over: float32 [B, 3, H, W]."""
        return self.torch.from_numpy(images_BHW3.transpose(0, 3, 1, 2).astype(np.float32, order="C"))

    def targets(self, boxes_xyxy_BG4: np.ndarray, label_BG: np.ndarray, mask_BG: np.ndarray) -> Any:
        """Boxes as it wants them: [B, G, 5] of label, centre and size; slots without a box last, and zero."""
        low, high = boxes_xyxy_BG4[..., :2], boxes_xyxy_BG4[..., 2:]
        target_BG5 = np.concatenate([label_BG[..., None], (low + high) / 2, high - low], axis=2).astype(np.float32)
        return self.torch.from_numpy(target_BG5 * mask_BG[..., None])

    def _only_nms(self) -> types.ModuleType:
        """In the place of torchvision, where it is not installed: its NMS, which the peer uses, by OpenCV's in C++."""

        def batched_nms(boxes: Any, scores: Any, labels: Any, iou: float) -> Any:
            corners = boxes.numpy()
            rectangles = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            kept = cv2.dnn.NMSBoxesBatched(rectangles, scores.numpy(), labels.numpy().astype(np.int32), 0.0, iou)
            return self.torch.from_numpy(np.asarray(kept, np.int64))

        torchvision: Any = types.ModuleType("torchvision")
        torchvision.ops = types.SimpleNamespace(batched_nms=batched_nms)
        return torchvision
