"""python train.py --config=configs/finetune.py --config.data.root=DIR

Fine-tunes official weights on your own classes, given hundreds of images (docs/custom_data.md). Expected with the 205
blood-cell photographs of docs/results.md: AP 0.32 to 0.43, AP50 0.57 to 0.79.
"""

from ml_collections import ConfigDict

from configs import yolox_nano


def get_config(recipe: str = "") -> ConfigDict:
    config = yolox_nano.get_config(recipe)  # yolox_s in all three places: higher AP, 25 times the work
    config.init_from = "yolox_nano"  # or the path of a .pth file; "": from scratch

    # Data: a COCO JSON file for each split; it also lists the classes
    config.data.root = "datasets/mine"
    config.data.train = "train.json"
    config.data.train_images = "images"
    config.data.val = "val.json"
    config.data.val_images = "images"

    # Length: 20 to 50 epochs for hundreds of images
    config.epochs = 20
    config.warmup_epochs = 1
    config.no_aug_epochs = 5  # the last epochs, without mosaic; an evaluation after each
    config.batch_size = 8  # scales the learning rate; both batch sizes: a multiple of the number of devices
    config.eval.batch_size = 8
    config.eval.every_epochs = 5
    return config
