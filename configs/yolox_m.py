"""python train.py --config=configs/yolox_m.py --config.data.root=…/coco

The official weights have AP 46.9 on COCO val2017; they were trained with the recipe :release.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "") -> ConfigDict:
    config = base.get_config(recipe)
    config.model = "m"
    return config
