"""Checks a new accelerator in at most 15 minutes: is it right, is it fast, does a killed run resume on it?

python -m yolox_jax.tools.selfcheck [--output=DIR] [--size=small] [--minutes=15]

Prints a table, and writes report.json, a profile of each network and the output of each check to --output. The report
is written anew after each check, so that Ctrl-C or a kill loses one check at most. Exit code 1 if a line failed. Needs
no data and no weights. Everything runs on the first device; only train.py, which the check of resuming starts, takes
all. --size=small is for a processor: it shows in a few minutes that the program works.
"""

import signal
import sys
import tempfile
from pathlib import Path
from typing import cast

from absl import flags

from yolox_jax.cli.outputs import output_folder
from yolox_jax.cli.terminal import quiet_libraries, run_program, user_errors
from yolox_jax.errors import writing
from yolox_jax.tools.selfcheck import examination, report
from yolox_jax.tools.selfcheck.checks import all_checks
from yolox_jax.tools.selfcheck.setting import SIZES, Setting

_OUTPUT = flags.DEFINE_string("output", "selfcheck", "The folder for report.json, profiles and logs.")
_SIZE = flags.DEFINE_enum("size", "full", list(SIZES), "How much is run.")
_MINUTES = flags.DEFINE_float("minutes", 15.0, "Whatever has not run by then is skipped.", lower_bound=0.0)
# The program starts itself with these two for each check.
_CHECK = flags.DEFINE_string("check", None, "Runs this check alone, in this process.")
_SCRATCH = flags.DEFINE_string("scratch", None, "The folder of that check for what is not kept.")


def main() -> None:
    quiet_libraries()
    size = SIZES[_SIZE.value]
    checks = all_checks(size)
    with user_errors(), output_folder(_OUTPUT.value) as folder:
        output = cast(Path, folder).absolute()
        if _CHECK.value is not None:
            (check,) = (each for each in checks if each.name == _CHECK.value)
            examination.run_here(Setting(size, output, Path(str(_SCRATCH.value))), check)
            return
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the running check ends too
        with tempfile.TemporaryDirectory(prefix="selfcheck_", ignore_cleanup_errors=True) as scratch:
            lines, seconds = examination.examine(Setting(size, output, Path(scratch)), checks, 60 * _MINUTES.value)
        print(f"{report.summary(lines, sum(seconds.values()))}; written to {_OUTPUT.value}")
    sys.exit(1 if any(line.status == "FAIL" for line in lines) else 0)


if __name__ == "__main__":
    run_program(main)
