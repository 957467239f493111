"""python train.py --config=configs/quickstart.py

Trains YOLOX-nano from scratch on drawn shapes. Expected: AP50 above 0.70, in less than five minutes on two CPU cores.
Model and loss are the real ones; image size, batch size and optimizer suit a small machine.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model = "nano"
    config.data.kind = "shapes"
    config.data.threads = 1  # drawing is Python code, which threads cannot run in parallel
    config.data.max_boxes = 8  # an image has at most six shapes
    config.input_size = (96, 96)  # small images and small batches: many steps in a few minutes
    config.mosaic.prob = 0.0  # the run is too short to learn from mosaics
    config.multiscale.enabled = False
    config.hsv.enabled = False  # the shapes already have random colors
    config.batch_size = 8
    config.epochs = 12
    config.warmup_epochs = 1
    config.no_aug_epochs = 1
    config.optimizer = "adamw"
    config.lr_per_image = 1e-2 / 8
    config.weight_decay = 0.05
    config.ema_decay = 0.998
    config.eval.every_epochs = 12  # only the last epoch: an evaluation takes seconds
    config.eval.batch_size = 40
    return config
