"""Averages weights of one network, from several runs or several checkpoints of one:

python -m yolox_jax.tools.soup --weights=RUN_A,RUN_B,RUN_C --config=configs/yolox_s.py --output=soup.safetensors

Prints the AP of each and of the average of their EMA weights on the validation split: with the average of the BatchNorm
statistics, and with statistics measured anew on training images that are letterboxed and not augmented further. Writes
the better of the two. Network and input size are those of the first weights, as in eval.py.
"""

from pathlib import Path
from typing import cast

from absl import flags
from ml_collections import config_flags

from yolox_jax.cli.as_trained import as_trained
from yolox_jax.cli.libraries import quiet_libraries
from yolox_jax.cli.outputs import output_file
from yolox_jax.cli.terminal import run_program, user_errors
from yolox_jax.inference.export.formats import ExportConfig
from yolox_jax.tools.soup import averaging
from yolox_jax.training import compilation
from yolox_jax.training.host_memory import keep_freed_memory

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config of model and data set.", lock_config=True)
_WEIGHTS = flags.DEFINE_list(
    "weights", None, "Two or more runs, checkpoints (RUN/checkpoints/STEP, RUN/best) or files, with commas between."
)
_OUTPUT = flags.DEFINE_string("output", "soup.safetensors", "The file to write: .safetensors or .pth.")
_BATCHES = flags.DEFINE_integer(
    "batches", 50, "Batches of config.eval.batch_size training images to measure statistics on; 0: do not.", 0
)


def main() -> None:
    keep_freed_memory()
    quiet_libraries()
    compilation.enable_compilation_cache()
    with user_errors(), output_file(_OUTPUT.value) as output:
        found = averaging.find_all(_WEIGHTS.value or [], _OUTPUT.value)
        config = as_trained(_CONFIG.value, found[0], config_flags.get_override_values(flags.FLAGS["config"]))
        soup = averaging.make_soup(config, found, _BATCHES.value)
        path = cast(Path, output)
        averaging.WRITERS[path.suffix](path, soup, ExportConfig(soup.size_hw, batch=None, detect=None))
        print(f"{_OUTPUT.value} is written: give it to --weights or config.init_from")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "weights"])
    run_program(main)
