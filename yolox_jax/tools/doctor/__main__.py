"""Checks a data set, and reports each fault with its place and what to do about it:

python -m yolox_jax.tools.doctor --config=configs/yolox_s.py [--config.data.…] [--strict] [--json=FILE] [--sheet=FILE]
                                 [--write-hashes=FILE | --check-hashes=FILE]

Decodes every image of both splits; changes nothing. Exit code 1 if there are errors, 0 if there are only warnings and
notes. The two last flags compare the files with an earlier state of the data set, which is more than any decoder can.
"""

import functools
import json
import logging
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from yolox_jax import storage
from yolox_jax.cli import from_config
from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.progress import print_progress
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.detection.anchors import check_size
from yolox_jax.tools.doctor import examination, findings_report, hashes
from yolox_jax.tools.doctor.examination import Report
from yolox_jax.visualize import sheets

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config whose data set is checked.", lock_config=True)
_STRICT = flags.DEFINE_boolean("strict", False, "Counts each warning of an image decoder as an error.")
_JSON = flags.DEFINE_string("json", None, "Writes all findings to this file, for programs.")
_SHEET = flags.DEFINE_string(
    "sheet", None, "Writes a picture of images with their boxes to this file, those with findings first."
)
_WRITE_HASHES = flags.DEFINE_string("write-hashes", None, "Writes the SHA-256 of each file of the data set here.")
_CHECK_HASHES = flags.DEFINE_string("check-hashes", None, "Compares the files with the hashes that were written here.")


def examine(config: ConfigDict, strict: bool = False) -> Report:
    """Examines both splits of a config's data set."""
    logging.getLogger("yolox_jax.data").setLevel(logging.ERROR)  # its warnings are in the report
    return examination.examine(
        config.data,
        size_hw=check_size(config.input_size),
        max_boxes=config.data.max_boxes,
        num_classes=config.num_classes,
        threads=from_config.num_threads(config),
        strict=strict,
        progress=lambda split, num_done, num_all: print_progress(num_done, num_all, f"{split}: read"),
    )


def main() -> None:
    quiet_libraries()
    with (
        user_errors(),
        output_file(_JSON.value) as json_file,
        output_file(_SHEET.value) as sheet_file,
        output_file(_WRITE_HASHES.value) as hash_file,
    ):
        record = _CHECK_HASHES.value
        expected = hashes.read(record) if record else {}
        config = _CONFIG.value
        threads = from_config.num_threads(config)
        root = hashes.root_of(config.data) if record or hash_file else None
        report = examine(config, _STRICT.value)
        progress = functools.partial(print_progress, what="hashed", unit="files")
        if root and record:
            report = report.with_findings(hashes.check(expected, root, record, threads, progress))
        print(f"\n{findings_report.text(report)}")
        if json_file:
            storage.write_bytes(json_file, f"{json.dumps(report.as_dict(), indent=2)}\n".encode())
        if sheet_file:
            sheets.write_picture(sheet_file, findings_report.contact_sheet(report))
        if root and hash_file:
            used = [file for split in report.splits.values() for file in split.annotations.files]
            text = hashes.to_json(hashes.compute(root, used, hash_file, threads, progress))
            storage.write_bytes(hash_file, text.encode())
    sys.exit(1 if report.count("error") else 0)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
