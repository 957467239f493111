"""python -m yolox_jax.tools.show_batch --config=configs/yolox_s.py [--step=N] [--output=FILE] [--config.field=value …]

A sheet of the training images of one step, augmented as the network will see them but for the step's image size, with
their boxes and class names.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from yolox_jax.cli import from_config
from yolox_jax.cli.terminal import make_parent_dirs, quiet_libraries, run_program, user_errors
from yolox_jax.visualize import sheets
from yolox_jax.visualize.batch_sheet import draw_sheet

_CONFIG = config_flags.DEFINE_config_file("config", None, "What is trained: a file of configs/.", lock_config=True)
_STEP = flags.DEFINE_integer("step", 0, "The step whose batch is shown; a late one has no mosaic.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", "batch.jpg", "Where the sheet is written.")
_MAX_IMAGES = flags.DEFINE_integer("max_images", 16, "How many of the batch at most.", lower_bound=1)


def main() -> None:
    quiet_libraries()
    with user_errors():
        make_parent_dirs(_OUTPUT.value)
        loaded, class_names = from_config.load_batch(_CONFIG.value, _STEP.value)
        sheet = draw_sheet(loaded, class_names, _CONFIG.value.hsv.multiplies, _MAX_IMAGES.value)
        sheets.write_picture(Path(_OUTPUT.value), sheet)
        num_boxes = int(loaded.batch.gt_mask.sum())
        print(f"{_OUTPUT.value}: {len(loaded.image_ids)} images of step {_STEP.value}, {num_boxes} boxes")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
