"""python -m yolox_jax.tools.show_batch --config=configs/yolox_s.py [--step=N] [--output=FILE] [--config.field=value …]

Draws the training images of one step with their boxes and class names: augmented as for the network, but at the input
size instead of the step's multi-scale size.
"""

from pathlib import Path
from typing import cast

from absl import flags
from ml_collections import config_flags

from yolox_jax.cli import from_config
from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.visualize import sheets
from yolox_jax.visualize.batch_sheet import draw_sheet

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.", lock_config=True)
_STEP = flags.DEFINE_integer(
    "step", 0, "The step whose batch is shown; those of the no-aug epochs have no mosaic.", lower_bound=0
)
_OUTPUT = flags.DEFINE_string("output", "batch.jpg", "The picture to write.")
_MAX_IMAGES = flags.DEFINE_integer("max_images", 16, "The most images of the batch to show.", lower_bound=1)


def main() -> None:
    quiet_libraries()
    with user_errors(), output_file(_OUTPUT.value) as output:
        loaded, class_names = from_config.load_batch(_CONFIG.value, _STEP.value)
        sheet = draw_sheet(loaded, class_names, _CONFIG.value.hsv.multiplies, _MAX_IMAGES.value)
        sheets.write_picture(cast(Path, output), sheet)
        num_boxes = int(loaded.batch.gt_mask.sum())
        print(f"{_OUTPUT.value}: {len(loaded.image_ids)} images of step {_STEP.value}, {num_boxes} boxes")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
