"""python train.py --config=configs/yolox_nano.py --config.data.root=…/coco

The official weights have AP 25.8 on COCO val2017; they were trained with the recipe :release.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(recipe: str = "") -> ConfigDict:
    config = base.get_config(recipe)
    config.model = "nano"
    config.input_size = (416, 416)  # the reference's exps/default/yolox_nano.py
    config.multiscale.min_units = 10  # random_size (10, 20), same file
    config.multiscale.max_units = 20
    config.mosaic.prob = 0.5  # mosaic_prob, same file
    config.mosaic.scale = (0.5, 1.5)  # mosaic_scale, same file
    config.mixup.prob = 0.0  # enable_mixup = False, same file
    return config
