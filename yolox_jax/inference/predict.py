"""Detects in a batch of images: network, optional test-time augmentation, decoding and NMS in one compiled program."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yolox_jax import compiler_options
from yolox_jax.augment import multiscale
from yolox_jax.augment.geometry import PAD_VALUE
from yolox_jax.compiler_options import CpuKernels
from yolox_jax.data.tiling import Tiling, tiling_of
from yolox_jax.detection import tta
from yolox_jax.detection.anchors import STRIDES, make_anchors
from yolox_jax.detection.kernels.map_images import over_tiles
from yolox_jax.detection.postprocess import detect, detect_in_tiles
from yolox_jax.errors import UserError
from yolox_jax.mesh import AXIS, RUN_AXIS, platform_of
from yolox_jax.models.yolox import YOLOX
from yolox_jax.types import Anchors, Detections, Predictions, Tiles

# (variables, images [B, H, W, 3] uint8 BGR) -> Detections in input pixels; or (variables, Tiles) -> in image pixels
Predict = Callable[[Any, Any], Detections]


@dataclasses.dataclass(frozen=True)
class DetectConfig:
    """Settings of detection.

    The defaults are those of config.eval.detect, for computing AP; those for looking at pictures are
    pretrained.DETECTOR_CONFIG.
    """

    conf: float = 0.001  # score threshold: boxes below it are dropped
    iou: float = 0.65  # NMS threshold: a box that overlaps a better one of its class by more is suppressed
    max_detections: int = 1000  # slots per image
    num_candidates: int = 2000  # best boxes per image that enter NMS
    multi_label: bool = False  # detects a box once for each class that reaches `conf`, not only for its best class
    tta: bool = False  # test-time augmentation: four views of each image, four times the work
    slices: str = ""  # tiles in which images are seen as well as whole: auto, RxC or pixels (data/tiling.py)
    overlap: float = 0.2  # of neighboring tiles, as a share of a tile's side

    def __post_init__(self) -> None:
        for name, meaning in (("conf", "a score threshold"), ("iou", "an IoU threshold")):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UserError(f"{name} is {value}", f"give {meaning} from 0 to 1")
        for name in ("max_detections", "num_candidates"):
            value = getattr(self, name)
            if value < 1:
                raise UserError(f"{name} is {value}", "give 1 or more")
        self.tiling  # noqa: B018  (checks the two fields)

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut; None: they are not."""
        return tiling_of(self.slices, self.overlap)


class _View(NamedTuple):
    """A view of an image in test-time augmentation: resized by `scale` and, if `mirrored`, flipped left to right."""

    scale: float
    mirrored: bool

    def scaled_hw(self, size_hw: tuple[int, ...]) -> tuple[int, int]:
        """Returns the size of the view of an image, before padding."""
        return round(size_hw[0] * self.scale), round(size_hw[1] * self.scale)


_PLAIN_VIEW = _View(1.0, mirrored=False)
# Scales are n/32, so that a scaled input side, a multiple of 32 before, is a whole number of pixels.
_TTA_VIEWS = (_PLAIN_VIEW, _View(1.0, mirrored=True), _View(27 / 32, mirrored=True), _View(40 / 32, mirrored=False))


def predict_images(model: YOLOX, variables: Any, images: jax.Array | Tiles, config: DetectConfig) -> Detections:
    """Detects in images [B, H, W, 3] uint8 BGR; the boxes are in pixels of these images.

    Of images that are cut into tiles, the network sees all tiles as one batch, on a CPU one after another; the boxes
    are in pixels of the images.
    """
    options: dict[str, Any] = {
        name: getattr(config, name) for name in ("conf", "iou", "max_detections", "num_candidates", "multi_label")
    }
    views = _TTA_VIEWS if config.tta else (_PLAIN_VIEW,)
    see = functools.partial(_predict_views, model, variables, views)
    if not isinstance(images, Tiles):
        return detect(see(images), _view_anchors(views, images.shape[1:3]), **options)
    num_images, num_tiles, height, width, _ = images.images.shape
    pixels_NHW3, mask_N = (x.reshape(-1, *x.shape[2:]) for x in (images.images, images.mask))
    predictions = over_tiles(see, pixels_NHW3, mask_N)
    per_image = jax.tree.map(lambda x: x.reshape(num_images, num_tiles, *x.shape[1:]), predictions)
    return detect_in_tiles(per_image, _view_anchors(views, (height, width)), images, **options)


def _predict_views(model: YOLOX, variables: Any, views: Sequence[_View], images_BHW3: jax.Array) -> Predictions:
    """Returns raw predictions for all views, at the anchors of `_view_anchors`."""
    return tta.join([_predict_view(model, variables, view, images_BHW3.astype(jnp.float32)) for view in views])


def _predict_view(model: YOLOX, variables: Any, view: _View, images_BHW3: jax.Array) -> Predictions:
    seen_BHW3 = images_BHW3[:, :, ::-1] if view.mirrored else images_BHW3
    if view.scale != 1:
        scaled_hw = view.scaled_hw(images_BHW3.shape[1:3])
        no_boxes_B04 = jnp.zeros((seen_BHW3.shape[0], 0, 4))
        seen_BHW3, _ = multiscale.resize(seen_BHW3, no_boxes_B04, scaled_hw)
        padding = [(0, -side % STRIDES[-1]) for side in scaled_hw]  # right and bottom, as letterboxing pads
        seen_BHW3 = jnp.pad(seen_BHW3, ((0, 0), *padding, (0, 0)), constant_values=PAD_VALUE)
    predictions = cast(Predictions, model.apply(variables, seen_BHW3, train=False))
    return tta.unmirror(predictions) if view.mirrored else predictions


def _view_anchors(views: Sequence[_View], size_hw: tuple[int, ...]) -> Anchors:
    """Returns the anchors that map the predictions of all views back to the original images of this size."""

    def of_view(view: _View) -> Anchors:
        padded_hw = [side + -side % STRIDES[-1] for side in view.scaled_hw(size_hw)]
        anchors = tta.unscale(make_anchors(padded_hw), view.scale)
        return tta.unmirror_anchors(anchors, size_hw[1]) if view.mirrored else anchors

    return tta.join_anchors([of_view(view) for view in views])


def make_predict(model: YOLOX, mesh: Mesh, config: DetectConfig, repeatable: bool = False) -> Predict:
    """Makes the jitted `predict_images` of a model: variables replicated on the mesh, images sharded over it.

    Give it variables whose BatchNorm is folded (models/folding.py); others work too, more slowly. With `repeatable`, as
    for evaluation, a GPU is asked for the same bits at every call. That may be slower.
    """

    axis = mesh.axis_names[0]
    return _mapped(model, mesh, config, (P(), P(axis)), P(axis), repeatable)


def make_predict_of_runs(model: YOLOX, mesh: Mesh, config: DetectConfig) -> Predict:
    """Makes what `make_predict` does, repeatable, for several runs at once, whose mesh is over "run" and "data".

    Variables and detections of the runs are joined along their first axis. Each sees all images, on its own devices.
    """
    return _mapped(model, mesh, config, (P(RUN_AXIS), P(AXIS)), P((RUN_AXIS, AXIS)), repeatable=True)


def _mapped(
    model: YOLOX, mesh: Mesh, config: DetectConfig, in_specs: tuple[P, P], out_specs: P, repeatable: bool
) -> Predict:
    """The jitted `predict_images`; `in_specs` are of variables and images."""

    def predict(variables: Any, images: jax.Array | Tiles) -> Detections:
        return predict_images(model, variables, images, config)

    # shard_map instead of automatic partitioning: each device's NMS loop ends when its own images are done.
    mapped = jax.shard_map(predict, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    placed = tuple(NamedSharding(mesh, spec) for spec in in_specs), NamedSharding(mesh, out_specs)
    options = compiler_options.for_detection(platform_of(mesh), model.cpu_kernels, repeatable)
    return jax.jit(mapped, in_shardings=placed[0], out_shardings=placed[1], compiler_options=options)


def of_one_image(detect: Callable[[Any], Detections], config: DetectConfig, size_hw: tuple[int, int]) -> Any:
    """Makes a function of one image [1, H, W, 3] from `detect`, which takes its tiles if the config cuts images."""
    tiling = config.tiling
    if tiling is None:
        return detect
    return lambda images_1HW3: detect(jax.tree.map(lambda x: x[None], tiling.cut(images_1HW3[0], size_hw)))


def compile_predict(
    predict: Predict, variables: Any, size_hw: tuple[int, int], batch_size: int, cpu_kernels: CpuKernels = "xla"
) -> Predict:
    """Compiles a function from `make_predict` for one input size and batch size, ahead of the first call.

    `cpu_kernels` is that of the model.
    """
    variable_shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    image_shape = jax.ShapeDtypeStruct((batch_size, *size_hw, 3), jnp.uint8)
    with compiler_options.uncached(cpu_kernels):
        return cast(Any, predict).lower(variable_shapes, image_shape).compile()  # Predict is a jitted function here
