"""python -m yolox_jax.tools.show_assignment --config=configs/yolox_s.py [--weights=…] [--step=N] [--output=FILE]

Draws which anchor points SimOTA assigns to which box, in the augmented images of one step at the input size. The
assignment depends on the network's predictions; without --weights the network is untrained, as at step 0. BatchNorm
uses the statistics of the images shown, as in training.
"""

from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import ConfigDict, config_flags

from yolox_jax.cli import from_config
from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.detection import losses
from yolox_jax.detection.anchors import make_anchors
from yolox_jax.training import state
from yolox_jax.types import Assignment, Batch, Predictions
from yolox_jax.visualize import assignment_sheet, sheets
from yolox_jax.visualize.batch_sheet import first_shifted
from yolox_jax.weights.load import WHAT_WEIGHTS_ARE, load_weights

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.", lock_config=True)
_WEIGHTS = flags.DEFINE_string("weights", None, WHAT_WEIGHTS_ARE)
_STEP = flags.DEFINE_integer(
    "step", 0, "The step whose batch is shown; those of the no-aug epochs have no mosaic.", lower_bound=0
)
_OUTPUT = flags.DEFINE_string("output", "assignment.jpg", "The picture to write.")
_MAX_IMAGES = flags.DEFINE_integer("max_images", 8, "The most images of the batch to show.", lower_bound=1)


def assign(config: ConfigDict, weights: str | None, batch: Batch, class_names: tuple[str, ...]) -> Assignment:
    """Assigns anchors to the boxes of a batch as the training step does. Returns an Assignment of [B, A] arrays."""
    model = from_config.model(config, len(class_names))
    if weights:
        variables = load_weights(weights, config.model, class_names, transfer=True, seed=config.seed)
    else:
        variables = state.init_variables(model, config.seed)
    anchors, assignment_config = make_anchors(batch.images.shape[1:3]), from_config.sim_ota_config(config)

    @jax.jit
    def assign_batch(variables: Any, batch: Batch) -> Assignment:
        images_BHW3 = batch.images.astype(jnp.float32)
        predictions, _ = model.apply(variables, images_BHW3, train=True, mutable=["batch_stats"])
        per_image = jax.vmap(losses.assign, in_axes=(0, None, 0, 0, 0, None))
        predictions = cast(Predictions, predictions)
        return per_image(predictions, anchors, batch.gt_boxes, batch.gt_labels, batch.gt_mask, assignment_config)

    return jax.device_get(assign_batch(variables, batch))


def main() -> None:
    quiet_libraries()
    with user_errors(), output_file(_OUTPUT.value) as output:
        loaded, class_names = from_config.load_batch(_CONFIG.value, _STEP.value)
        batch = first_shifted(loaded, _MAX_IMAGES.value, _CONFIG.value.hsv.multiplies)
        assignment = assign(_CONFIG.value, _WEIGHTS.value, batch, class_names)
        anchors = make_anchors(batch.images.shape[1:3])
        sheets.write_picture(cast(Path, output), assignment_sheet.draw_sheet(batch, assignment, anchors, class_names))
        print(f"{_OUTPUT.value}: step {_STEP.value}, {assignment_sheet.summary(batch, assignment, anchors)}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
