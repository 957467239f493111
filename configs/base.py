"""Every number of the recipe, with its source: the official PyTorch YOLOX at its HEAD of 2025 unless a comment says
otherwise. "exp" is its yolox/exp/yolox_base.py, "ours" marks what it does not have.

Fields hold plain values; anything derived from them is computed once --config.field=… has set them. Two other recipes
have names, which follow the file: --config=configs/yolox_s.py:release, or :large_batch.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from yolox_jax.errors import UserError


def get_config(recipe: str = "") -> ConfigDict:
    config = _head_of_2025()
    if recipe:
        if recipe not in _RECIPES:
            raise UserError(f"there is no recipe {recipe!r}", f"choose one of {', '.join(_RECIPES)}, or none")
        _RECIPES[recipe](config)
    return config


def _head_of_2025() -> ConfigDict:
    """The default recipe. Long because it lists every field once."""
    config = ConfigDict()
    config.model = "s"  # a key of yolox_jax.models.yolox.VARIANTS
    config.num_classes = placeholder(int)  # taken from the data set; if given too, the two must agree
    config.dtype = "auto"  # the compute dtype: float32, bfloat16, float16, or auto: the one the device is built for
    config.cpu_kernels = "auto"  # on a CPU: "onednn", "xla", or "auto": oneDNN in long runs, if jaxlib has it
    config.seed = 0
    config.num_runs = 1  # runs with seeds seed, seed + 1, …, trained at once, each on its own part of the devices
    config.init_from = ""  # weights to fine-tune from: a run, a checkpoint, a .pth file or an official name
    config.init_item = "ema"  # which weights of a checkpoint: "ema" (the EMA weights) or "raw"

    # Data
    config.data = ConfigDict()
    config.data.kind = "coco"  # or voc, yolo_txt, tfds, shapes: see open_split in yolox_jax/data/sources/open.py
    config.data.root = "datasets/coco"  # or a folder in a bucket: gs://bucket/coco, s3://bucket/coco
    config.data.local_dir = ""  # where a data set in a bucket is copied to; if empty, below the cache folder
    config.data.train = "annotations/instances_train2017.json"
    config.data.train_images = "train2017"
    config.data.val = "annotations/instances_val2017.json"
    config.data.val_images = "val2017"
    config.data.yaml = "data.yaml"  # for kind "yolo_txt", instead of train and val
    config.data.class_names = ""  # for kind "voc": a,b,c; if empty, taken from the xml files
    # More data sets, which are read as one with this: for each, the fields of this section in which it differs, such as
    # {"root": "datasets/more", "kind": "voc"}. Classes of the same name are one; an empty train or val leaves it out.
    config.data.also = ()
    config.data.classes = ""  # a,b,c: only these classes, in this order; if empty, all
    config.data.single_class = False  # True: all of them are one class, "object"
    config.data.fraction = 1.0  # share of the training images to use, the same ones whatever the seed
    # For kind "tfds": the names of the features, here those of coco/2017.
    config.data.tfds = ConfigDict({"image": "image", "image_id": "image/id", "objects": "objects", "bbox": "bbox"})
    config.data.tfds.update({"label": "label", "is_crowd": "is_crowd", "area": "area"})
    config.data.shapes = ConfigDict({"num_train": 1000, "num_val": 200, "seed": 0})  # for kind "shapes"
    config.data.bad_images = "replace"  # by an empty image, with a warning; "refuse": the run stops at the start
    config.data.max_file_mb = 2048  # larger files of a data set are not read
    config.data.max_megapixels = 256  # images of more million pixels, by their header, are not decoded
    # Images of 16 bits: "full": 0..65535 becomes 0..255; "range": the levels of each image do, for 12 bits in 16.
    config.data.sixteen_bit = "full"
    # True: training decodes JPEGs of at least twice the input at 1/2, 1/4 or 1/8: faster, other pixels. (ours)
    config.data.reduced_decoding = False
    config.data.mosaic_window = 256  # mosaic partners come from the last 256 images in shuffled order; 0: any image
    # Threads that decode and augment, per process; if not set, the cores of this process divided among data.workers, at
    # most 16: beyond, worker processes gain more.
    config.data.threads = placeholder(int)
    # Worker processes, each with these threads and its own cache; 0: threads in the main process. Several workers
    # decode an image more than once: 1.9 times with two, 2.9 times with four.
    config.data.workers = 0
    config.data.prefetch = 4  # batches prefetched
    config.data.cache_mb = 1024  # cache of decoded images, per process
    config.data.crowd_as_object = False  # True: what COCO marks as a crowd (iscrowd 1) is learned and evaluated too
    config.data.merge_same_names = False  # True: classes of the same name are one class; False: an error
    config.data.max_boxes = 120  # ground-truth boxes per image (exp: TrainTransform max_labels=120 with mosaic)
    # Repeat-factor sampling: images of rarer classes repeat sqrt(threshold / frequency) times (LVIS: 0.001); 0: off.
    config.data.repeat_threshold = 0.0

    # Input and augmentation
    config.input_size = (640, 640)  # height, width; or one number: --config.input_size=640
    config.mosaic = ConfigDict()
    config.mosaic.prob = 1.0  # exp.mosaic_prob
    config.mosaic.degrees = 10.0  # exp.degrees
    config.mosaic.translate = 0.1  # exp.translate
    config.mosaic.scale = (0.1, 2.0)  # exp.mosaic_scale
    config.mosaic.shear = 2.0  # exp.shear
    config.mixup = ConfigDict({"prob": 1.0, "scale": (0.5, 1.5)})  # exp.mixup_prob, exp.mixup_scale
    config.flip_prob = 0.5  # exp.flip_prob; 0: mixup and copy-paste do not mirror either
    config.hsv = ConfigDict({"enabled": True, "hue": 5.0, "saturation": 30.0, "value": 30.0})  # augment_hsv
    config.hsv.multiplies = False  # False: the shifts are added to the 8-bit levels; True: they are fractions of them
    config.min_box_side = 1.0  # input pixels; boxes must be larger to be trained on (TrainTransform)
    # Further augmentations, off by default (ours): docs/augmentation.md. The no-aug epochs have flips, turns and gray.
    config.augment = "default"  # or a name of AUGMENT, at the end of this file, which sets several of these fields
    config.augment_hook = ""  # module:function, your own augmentation of each training picture
    config.vertical_flip_prob = 0.0
    config.turn_prob = 0.0  # turns by 90, 180 or 270 degrees; 0.75: all four directions are equally likely
    config.perspective = 0.0  # the corners of the view move by up to this fraction of its sides, below 0.25
    config.crop = ConfigDict({"prob": 0.0, "scale": (0.5, 1.0)})  # a part of the picture: fraction of its sides
    # Boxes of another image at a random place, at this scale of their size there; rectangles of gray.
    config.copy_paste = ConfigDict({"prob": 0.0, "max_boxes": 3, "scale": (0.5, 1.5)})
    config.cutout = ConfigDict({"prob": 0.0, "max_holes": 4, "scale": (0.05, 0.2)})  # fraction of the picture's sides
    config.max_hidden = 0.7  # boxes of which pasted boxes and holes hide more than this fraction are left out
    config.gray_prob = 0.0
    config.blur = ConfigDict({"prob": 0.0, "sigma": (0.5, 2.0)})  # Gaussian, input pixels
    config.jpeg = ConfigDict({"prob": 0.0, "quality": (30, 90)})
    config.multiscale = ConfigDict()  # exp.random_resize
    config.multiscale.enabled = True
    config.multiscale.every_steps = 10
    config.multiscale.range_units = 5  # exp.multiscale_range: units of 32 pixels to either side of the input height
    # Multi-scale in the no-aug epochs too, as the reference does. Ours turns it off there: in short runs, the last
    # image sizes shift the final boxes (docs/results.md).
    config.multiscale.in_plain_epochs = False
    config.multiscale.min_units = placeholder(int)  # exp.random_size, for models that set it; replaces range_units
    config.multiscale.max_units = placeholder(int)
    config.multiscale.seed = placeholder(int)  # of the sizes; config.seed if not set (ours)

    # Schedule and optimizer
    config.batch_size = 64  # global (the reference's README: tools/train.py -b 64 on 8 GPUs)
    config.accumulate_steps = 1  # parts a batch is split into, one after another, to save memory (ours)
    config.epochs = 300  # exp.max_epoch
    config.warmup_epochs = 5  # exp.warmup_epochs
    config.no_aug_epochs = 15  # exp.no_aug_epochs: the last epochs, without mosaic and mixup, with the L1 loss
    config.optimizer = "sgd"  # or adamw
    config.lr_per_image = 0.01 / 64.0  # exp.basic_lr_per_img; times the global batch it is the learning rate
    config.min_lr_ratio = 0.05  # exp.min_lr_ratio
    config.momentum = 0.9  # exp.momentum
    config.weight_decay = 5e-4  # exp.weight_decay; of convolution kernels only
    config.clip_grad_norm = placeholder(float)  # ours: the largest global norm of the gradients; not clipped if not set
    config.ema_decay = 0.9998  # exp.get_trainer: ModelEMA(…, 0.9998)
    config.freeze = ()  # regular expressions of variable paths to freeze: ("backbone/backbone",) is the backbone
    config.patience = placeholder(int)  # early stopping after this many evaluations in a row without a better AP
    config.max_bad_steps = 10  # the run stops after this many steps in a row with a non-finite loss or gradient (ours)

    # SimOTA: the reference's YOLOXHead.get_assignments
    config.assignment = ConfigDict()
    config.assignment.center_radius = 1.5
    config.assignment.num_candidates = 10
    config.assignment.iou_weight = 3.0
    config.assignment.outside_penalty = 1e6
    config.assignment.in_box_candidates = False  # True: anchors anywhere in a box are candidates too, as in the paper

    # Loss: YOLOXHead.get_losses and IOUloss
    config.loss = ConfigDict()
    config.loss.iou_weight = 5.0  # YOLOXHead's reg_weight
    config.loss.obj_weight = 1.0
    config.loss.cls_weight = 1.0
    config.loss.l1_weight = 1.0  # in the no-aug epochs; L1 is off before them
    config.loss.iou_type = "iou"  # 1 - IoU^2, or "giou": 1 - GIoU (IOUloss has both)

    # Evaluation
    config.eval = ConfigDict()
    config.eval.every_epochs = 10  # exp.eval_interval; in the no-aug epochs every epoch
    config.eval.batch_size = 64
    config.eval.metric = "coco"  # or voc: mAP07 and mAP12 at IoU 0.5; AP07 and AP average them over IoU 0.5 to 0.95
    config.eval.detect = ConfigDict()
    config.eval.detect.conf = 0.001  # --conf 0.001 in the reference's README
    config.eval.detect.iou = 0.65  # exp.nmsthre
    config.eval.detect.max_detections = 1000  # per image
    config.eval.detect.num_candidates = 2000  # boxes per image that enter NMS; AP by both: docs/architecture.md
    config.eval.detect.multi_label = False  # True: every class of a box above conf, not only its best one
    config.eval.detect.tta = False  # test-time augmentation: four views of each image, four times the work
    # For small objects: eval.py sees each image in tiles too: auto, rows x columns such as 2x3, or a tile's pixels.
    config.eval.detect.slices = ""
    config.eval.detect.overlap = 0.2  # of neighboring tiles, as a share of a tile's side

    # Running
    config.parallel = ConfigDict()
    config.parallel.kind = "shard_map"  # or pmap
    config.parallel.shard_state = False  # ZeRO-1 sharding of optimizer state and EMA weights: less memory per device
    config.parallel.sync_bn = False  # BatchNorm over the images of all devices; for few images per device
    # Several processes: found automatically on TPU pods, Slurm and Open MPI; elsewhere, give all three to each process.
    config.parallel.coordinator = ""  # HOST:PORT of process 0; "none": one process, even on a cluster
    config.parallel.num_processes = placeholder(int)
    config.parallel.process_id = placeholder(int)
    config.log_every_steps = 10
    config.tracker = ""  # or wandb, mlflow: the numbers of metrics.jsonl go there too
    config.profile = 0  # steps to trace into the run directory, soon after the start
    config.checkpoint = ConfigDict()  # saves also happen before every evaluation
    config.checkpoint.every_steps = placeholder(int)
    config.checkpoint.every_minutes = 10.0
    config.checkpoint.keep_last = 2  # plus the one with the best AP
    config.resume = True  # resume the run in the run directory; False: move it aside and start again
    return config


def _release(config: ConfigDict) -> None:
    """The recipe of the published weights: the reference's release 0.1.0."""
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
    """AdamW with a batch for many chips. MMYOLO reports 34.3, 41.9 and 47.5 AP for tiny, s and m with these numbers, in
    its yolox_*_fast_8xb32-300e-rtmdet-hyp_coco configs."""
    config.batch_size = 256
    config.optimizer = "adamw"
    config.lr_per_image = 0.004 / 256
    config.weight_decay = 0.05  # still of kernels only
    config.ema_decay = 1 - 2e-4
    config.multiscale.every_steps = 1
    config.no_aug_epochs = 20


_RECIPES = {"release": _release, "large_batch": _large_batch}

# What config.augment sets, unless the command line or the config's file sets it: starting points for kinds of images,
# chosen by what is true of them, not by AP. (ours)
AUGMENT: dict[str, dict[str, Any]] = {
    "default": {},
    # Few images, or objects that mosaic and mixup make unrecognizable: less of everything.
    "gentle": {"mosaic.prob": 0.5, "mosaic.degrees": 0.0, "mosaic.scale": (0.5, 1.5), "mosaic.shear": 0.0}
    | {"mixup.prob": 0.0},
    # Seen from above: no direction is up, objects are small and of known size.
    "aerial": {"vertical_flip_prob": 0.5, "turn_prob": 0.75, "mosaic.scale": (0.5, 1.5), "mixup.prob": 0.0},
    # Text is not mirrored; pages lie nearly straight, are photographed at an angle, scanned in gray, compressed.
    "documents": {"flip_prob": 0.0, "mosaic.degrees": 3.0, "mosaic.scale": (0.5, 1.5), "mixup.prob": 0.0}
    | {"perspective": 0.05, "gray_prob": 0.2, "blur.prob": 0.1, "jpeg.prob": 0.3},
    # No direction is up, the magnification is known, the focus is not; cells overlap as they are.
    "microscopy": {"vertical_flip_prob": 0.5, "turn_prob": 0.75, "mosaic.scale": (0.8, 1.25), "mixup.prob": 0.0}
    | {"mosaic.shear": 0.0, "blur.prob": 0.2},
}
