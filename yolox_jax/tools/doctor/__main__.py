"""Checks a data set, and reports each fault with its place and what to do about it:

python -m yolox_jax.tools.doctor --config=configs/yolox_s.py [--config.data.…] [--json=FILE] [--sheet=FILE]

Decodes every image of both splits; changes nothing. Exit code 1 if there are errors, 0 if there are only warnings and
notes.
"""

import json
import logging
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.terminal import print_progress, quiet_libraries, run_program, user_errors
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import writing
from yolox_jax.tools.doctor import examination, findings_report
from yolox_jax.tools.doctor.examination import Report
from yolox_jax.visualize import sheets

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config whose data set is checked.", lock_config=True)
_JSON = flags.DEFINE_string("json", None, "Writes all findings to this file, for programs.")
_SHEET = flags.DEFINE_string(
    "sheet", None, "Writes a picture of images with their boxes to this file, those with findings first."
)


def examine(config: ConfigDict) -> Report:
    """Examines both splits of a config's data set."""
    logging.getLogger("yolox_jax.data").setLevel(logging.ERROR)  # its warnings are in the report
    return examination.examine(
        config.data,
        size_hw=check_size(config.input_size),
        max_boxes=config.data.max_boxes,
        num_classes=config.num_classes,
        threads=config.data.threads,
        progress=lambda split, num_done, num_all: print_progress(num_done, num_all, f"{split}: read"),
    )


def main() -> None:
    quiet_libraries()
    with user_errors(), output_file(_JSON.value) as json_file, output_file(_SHEET.value) as sheet_file:
        report = examine(_CONFIG.value)
        print(f"\n{findings_report.text(report)}")
        if json_file:
            with writing(json_file):
                json_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
        if sheet_file:
            sheets.write_picture(sheet_file, findings_report.contact_sheet(report))
    sys.exit(1 if report.count("error") else 0)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
