"""python train.py --config=configs/yolox_x.py --config.data.root=…/coco

Expected AP on COCO val2017: 51.1, that of the official weights, which the recipe :release trained.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "") -> ConfigDict:
    config = base.get_config(recipe)
    config.model = "x"
    return config
