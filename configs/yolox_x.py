"""python train.py --config=configs/yolox_x.py --config.data.root=…/coco

The official weights of this model, which an older recipe made, have 51.1 AP on COCO val2017.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "") -> ConfigDict:
    config = base.get_config(recipe)
    config.model = "x"
    return config
