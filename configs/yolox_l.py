"""python train.py --config=configs/yolox_l.py --config.data.root=…/coco

Expected on COCO val2017: 49.7 AP with the official weights, which an older recipe made.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model = "l"
    return config
