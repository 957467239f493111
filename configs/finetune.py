"""python train.py --config=configs/finetune.py --config.data.root=DIR

Official weights, taught one's own classes with hundreds of images; docs/custom_data.md goes through it. These are the
settings of the blood cells in docs/results.md: 205 photographs, AP 0.38 to 0.43 at the end, AP50 0.70 to 0.79.
"""

from ml_collections import ConfigDict

from configs import yolox_nano


def get_config(recipe: str = "") -> ConfigDict:
    config = yolox_nano.get_config(recipe)  # or yolox_s, here, above and below: finds more, at 25 times the work
    config.init_from = "yolox_nano"  # or the path of the .pth file; "" from scratch

    # The data set: a COCO json for each split, classes as it lists them
    config.data.root = "datasets/mine"
    config.data.train = "train.json"
    config.data.train_images = "images"
    config.data.val = "val.json"
    config.data.val_images = "images"

    # How long: with hundreds of images 20 to 50 epochs
    config.epochs = 20
    config.warmup_epochs = 1
    config.no_aug_epochs = 5  # the last, without mosaic; each is evaluated
    config.batch_size = 8  # the learning rate follows; a multiple of the number of devices, as below
    config.eval.batch_size = 8
    config.eval.every_epochs = 5
    return config
