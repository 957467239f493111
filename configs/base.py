"""The numbers of the recipe, with their source: the official PyTorch YOLOX at its HEAD of 2025 ("exp" below is its
yolox/exp/yolox_base.py) unless a comment says otherwise.

Numbers and strings only. What follows from them is derived in train.py, after --config.x=… had its say.

Two other recipes have names, which follow a file's: --config=configs/yolox_s.py:release, or :large_batch.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(recipe: str = "") -> ConfigDict:
    config = _head_of_2025()
    if recipe:
        if recipe not in _RECIPES:
            raise ValueError(f"there is no recipe {recipe!r}: choose one of {', '.join(_RECIPES)}, or none")
        _RECIPES[recipe](config)
    return config


def _head_of_2025() -> ConfigDict:
    config = ConfigDict()
    config.model = "s"  # a key of yolox_jax.models.yolox.VARIANTS
    config.num_classes = placeholder(int)  # the data set says; where given too, the two must agree
    config.dtype = "auto"  # of the network's computation: float32, bfloat16, or by backend (CPU float32)
    config.seed = 0
    config.init_from = ""  # a run, a checkpoint, a .pth or an official name: fine-tuning starts there
    config.init_item = "ema"  # of a run's checkpoint: the averaged weights, or raw

    # Data
    config.data = ConfigDict()
    config.data.kind = "coco"  # or voc, yolo_txt, tfds, shapes: open_split in yolox_jax/data/sources/open.py tells all
    config.data.root = "datasets/coco"
    config.data.train = "annotations/instances_train2017.json"
    config.data.train_images = "train2017"
    config.data.val = "annotations/instances_val2017.json"
    config.data.val_images = "val2017"
    config.data.yaml = "data.yaml"  # for kind "yolo_txt", instead of train and val
    config.data.class_names = ""  # for kind "voc": a,b,c; where empty, the xml files say
    # For kind "tfds": names of the features, coco/2017's.
    config.data.tfds = ConfigDict({"image": "image", "image_id": "image/id", "objects": "objects", "bbox": "bbox"})
    config.data.tfds.update({"label": "label", "is_crowd": "is_crowd", "area": "area"})
    config.data.shapes = ConfigDict({"num_train": 1000, "num_val": 200, "seed": 0})  # for kind "shapes"
    config.data.bad_images = "replace"  # by empty ones, each named once; or refuse: read all at the start, stop if any
    config.data.mosaic_window = 256  # positions of the shuffled order that mosaic partners come from; 0: the whole set
    config.data.threads = 2  # that decode and augment, a process
    # Processes that do so, with as many threads and a cache each; 0: the threads of this one. Several decode an image
    # more than once: 1.9 times with two, 2.9 with four.
    config.data.workers = 0
    config.data.prefetch = 4  # batches made ahead
    config.data.cache_mb = 1024  # of decoded images, a process
    config.data.max_boxes = 120  # slots an image (exp: TrainTransform max_labels=120 with mosaic)
    # Images of a class that is in fewer than this share of them come more often, by the root of how many times fewer
    # (LVIS took 0.001); 0: each once an epoch.
    config.data.repeat_threshold = 0.0

    # Input and augmentation
    config.input_size = (640, 640)  # height, width
    config.mosaic = ConfigDict()
    config.mosaic.prob = 1.0  # exp.mosaic_prob
    config.mosaic.degrees = 10.0  # exp.degrees
    config.mosaic.translate = 0.1  # exp.translate
    config.mosaic.scale = (0.1, 2.0)  # exp.mosaic_scale
    config.mosaic.shear = 2.0  # exp.shear
    config.mixup = ConfigDict({"prob": 1.0, "scale": (0.5, 1.5)})  # exp.mixup_prob, exp.mixup_scale
    config.flip_prob = 0.5  # exp.flip_prob
    config.hsv = ConfigDict({"enabled": True, "hue": 5.0, "saturation": 30.0, "value": 30.0})  # augment_hsv
    config.hsv.multiplies = False  # they are added to the levels; True: they are shares of them
    config.min_box_side = 1.0  # input pixels: smaller boxes are not learnt (TrainTransform)
    config.multiscale = ConfigDict()  # exp.random_resize
    config.multiscale.enabled = True
    config.multiscale.every_steps = 10
    config.multiscale.range_units = 5  # exp.multiscale_range: of 32 pixels, around the input's height
    # exp: as the others. Here the last no_aug_epochs keep to the input's size, as they do to plain images: in short runs
    # other sizes would move the boxes of the end (docs/results.md).
    config.multiscale.in_plain_epochs = False
    config.multiscale.min_units = placeholder(int)  # exp.random_size, where an exp sets it: instead of the range
    config.multiscale.max_units = placeholder(int)

    # Schedule and optimiser
    config.batch_size = 64  # global (tools/train.py in the reference's README: -b 64 over 8 GPUs)
    config.accumulate_steps = 1  # parts in which a batch passes the network, where it does not fit at once
    config.epochs = 300  # exp.max_epoch
    config.warmup_epochs = 5  # exp.warmup_epochs
    config.no_aug_epochs = 15  # exp.no_aug_epochs: the last ones, with the L1 loss
    config.optimizer = "sgd"  # or adamw
    config.lr_per_image = 0.01 / 64.0  # exp.basic_lr_per_img: times the global batch
    config.min_lr_ratio = 0.05  # exp.min_lr_ratio
    config.momentum = 0.9  # exp.momentum
    config.weight_decay = 5e-4  # exp.weight_decay: convolution kernels only
    config.clip_grad_norm = placeholder(
        float
    )  # the largest global norm of the gradients; not clipped if not set (ours)
    config.ema_decay = 0.9998  # exp.get_trainer: ModelEMA(…, 0.9998)
    config.freeze = ()  # patterns of variables that do not learn: ("backbone/backbone",) is CSPDarknet
    config.patience = placeholder(int)  # evaluations in a row without a better AP after which training ends
    config.max_bad_steps = 10  # steps in a row without a finite loss before the run stops (ours)

    # Assignment: YOLOXHead.get_assignments
    config.assignment = ConfigDict()
    config.assignment.center_radius = 1.5
    config.assignment.num_candidates = 10
    config.assignment.iou_weight = 3.0
    config.assignment.outside_penalty = 1e6
    config.assignment.in_box_candidates = False  # anchors anywhere in a box too, as the paper has it

    # Loss: YOLOXHead.get_losses and IOUloss
    config.loss = ConfigDict()
    config.loss.iou_weight = 5.0  # YOLOXHead's reg_weight
    config.loss.obj_weight = 1.0
    config.loss.cls_weight = 1.0
    config.loss.l1_weight = 1.0  # in the last no_aug_epochs; L1 is off before them
    config.loss.iou_type = "iou"  # 1 - IoU^2, or "giou": 1 - GIoU (IOUloss has both)

    # Evaluation
    config.eval = ConfigDict()
    config.eval.every_epochs = 10  # exp.eval_interval; every epoch in the last no_aug_epochs
    config.eval.batch_size = 64
    config.eval.metric = "coco"  # or voc: mAP07 and mAP12, and as AP07 and AP both over IoU 0.5 to 0.95
    config.eval.detect = ConfigDict()
    config.eval.detect.conf = 0.001  # --conf 0.001 in the reference's README
    config.eval.detect.iou = 0.65  # exp.nmsthre
    config.eval.detect.max_detections = 1000  # slots an image; docs/architecture.md says how AP depends on the last two
    config.eval.detect.num_candidates = 2000  # boxes an image that enter NMS
    config.eval.detect.multi_label = False  # every class of a box that scores conf (the reference: its best one only)
    config.eval.detect.tta = False  # the image mirrored, smaller and larger too: four times the work

    # Running
    config.parallel = ConfigDict()
    config.parallel.kind = "shard_map"  # or pmap
    config.parallel.shard_state = False  # optimiser state and EMA divided over the devices, for less memory on each
    config.parallel.sync_bn = False  # BatchNorm over the images of all devices, for small batches a device
    # Several processes: TPU pods, Slurm and Open MPI say these themselves; elsewhere give all three to each process.
    config.parallel.coordinator = ""  # HOST:PORT of process 0; none: one process wherever this runs
    config.parallel.num_processes = placeholder(int)
    config.parallel.process_id = placeholder(int)
    config.log_every_steps = 10
    config.tracker = ""  # or wandb, mlflow: told what metrics.jsonl is told
    config.profile = 0  # steps to trace, soon after the start, into the run directory
    config.checkpoint = ConfigDict()  # besides at every evaluation
    config.checkpoint.every_steps = placeholder(int)
    config.checkpoint.every_minutes = 10.0
    config.checkpoint.keep_last = 2  # and the best by AP besides
    config.resume = True  # go on with what the run directory holds; where False, start again there
    return config


def _release(config: ConfigDict) -> None:
    """What the published weights were trained with: the reference's release 0.1.0."""
    config.batch_size = 128  # arXiv 2107.08430, section 2.1
    config.multiscale.in_plain_epochs = True
    config.multiscale.min_units = 14  # 448 … 832, same section and exp.random_size (14, 26)
    config.multiscale.max_units = 26
    config.mixup.scale = (0.8, 1.6)  # exp.scale
    config.min_box_side = 8.0  # TrainTransform
    config.hsv.multiplies = True  # augment_hsv(hgain=0.015, sgain=0.7, vgain=0.4)
    config.hsv.update({"hue": 0.015, "saturation": 0.7, "value": 0.4})
    config.assignment.center_radius = 2.5  # YOLOXHead.get_in_boxes_info, and the next two
    config.assignment.in_box_candidates = True
    config.assignment.outside_penalty = 1e5


def _large_batch(config: ConfigDict) -> None:
    """AdamW and a batch for many chips; MMYOLO publishes 34.3, 41.9 and 47.5 AP for tiny, s and m with these
    numbers (its yolox_*_fast_8xb32-300e-rtmdet-hyp_coco)."""
    config.batch_size = 256
    config.optimizer = "adamw"
    config.lr_per_image = 0.004 / 256
    config.weight_decay = 0.05  # of kernels only, as ever here
    config.ema_decay = 1 - 2e-4
    config.multiscale.every_steps = 1
    config.no_aug_epochs = 20


_RECIPES = {"release": _release, "large_batch": _large_batch}
