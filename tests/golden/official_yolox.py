"""The official PyTorch YOLOX, from a checkout, with the weights that the golden arrays are computed with."""

import importlib
import importlib.util
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.material import golden_state_dict

Arrays = dict[str, Any]

VARIANTS = {  # depth, width, depthwise
    "nano": (0.33, 0.25, True),
    "tiny": (0.33, 0.375, False),
    "s": (0.33, 0.50, False),
    "m": (0.67, 0.75, False),
    "l": (1.0, 1.0, False),
    "x": (1.33, 1.25, False),
    "darknet53": None,
}


class Official:
    """The modules of the checkout, and PyTorch."""

    def __init__(self, checkout: Path) -> None:
        if not (checkout / "yolox" / "models").is_dir():
            raise SystemExit(f"{checkout} is no checkout of the official YOLOX: it has no yolox/models")
        sys.path.insert(0, str(checkout))
        if importlib.util.find_spec("torchvision") is None:
            sys.modules["torchvision"] = types.ModuleType("torchvision")  # imported there, but no NMS is run here
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(2)
        self.models = importlib.import_module("yolox.models")
        self.utils = importlib.import_module("yolox.utils")
        self.schedules = importlib.import_module("yolox.utils.lr_scheduler")
        self.augment = importlib.import_module("yolox.data.data_augment")
        self.mosaic = importlib.import_module("yolox.data.datasets.mosaicdetection")
        self.voc_eval = importlib.import_module("yolox.evaluators.voc_eval").voc_eval

    def network(self, name: str, num_classes: int = 80) -> Any:
        """The official network, with BatchNorm as its Exp sets it and the weights of the golden rule."""
        variant = VARIANTS[name]
        if variant is None:
            head = self.models.YOLOXHead(num_classes, 1.0, in_channels=[128, 256, 512], act="lrelu")
            network = self.models.YOLOX(self.models.YOLOFPN(), head)
        else:
            depth, width, depthwise = variant
            shared = {"in_channels": [256, 512, 1024], "act": "silu", "depthwise": depthwise}
            neck = self.models.YOLOPAFPN(depth, width, **shared)
            network = self.models.YOLOX(neck, self.models.YOLOXHead(num_classes, width, **shared))
        for module in network.modules():
            if isinstance(module, self.torch.nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        weights = golden_state_dict(shapes)
        network.load_state_dict({key: self.torch.from_numpy(np.array(weights[key])) for key in shapes})
        return network


def seeded(*key: object) -> np.random.RandomState:
    """A generator seeded by a name: NumPy keeps the stream of RandomState for good."""
    return np.random.RandomState(zlib.crc32("/".join(map(str, key)).encode()))
