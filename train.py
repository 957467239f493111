"""Trains a detector: python train.py --config=configs/yolox_s.py [--workdir=DIR] [--config.field=value …]

The run itself is yolox_jax/run/train.py, whose train() is the table of contents; here are the flags.
"""

from yolox_jax.cli import at_start  # noqa: F401  # isort: skip  (before the libraries)
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from yolox_jax import storage
from yolox_jax.cli import run_summary
from yolox_jax.cli.from_config import batch_pixels
from yolox_jax.cli.terminal import joined, quiet_libraries, run_program
from yolox_jax.run.callbacks import Callbacks
from yolox_jax.run.seeds import train_seeds
from yolox_jax.run.train import train
from yolox_jax.training import compilation
from yolox_jax.training.host_memory import keep_freed_memory
from yolox_jax.training.interruption import sigterm_ends
from yolox_jax.training.open_directory import opened

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config, such as configs/yolox_s.py.", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run directory, a folder or an address like gs://bucket/run; runs/<config name> by default."
)


def main() -> None:
    flag = flags.FLAGS["config"]
    config_file = config_flags.get_config_filename(flag)
    config, where = _CONFIG.value, _CONFIG.value.parallel
    keep_freed_memory(batch_pixels(config))
    quiet_libraries()
    compilation.enable_compilation_cache()
    workdir = storage.resolve(_WORKDIR.value or Path("runs") / Path(config_file).stem)
    with joined(where.coordinator, where.num_processes, where.process_id), sigterm_ends():
        if config.num_runs != 1:
            return run_summary.print_seeds(train_seeds(config, workdir), workdir)
        with opened(workdir, config.resume) as directory:
            result = train(config, directory, Callbacks())
    run_summary.print_end(result, directory.address, config_file, config_flags.get_override_values(flag))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    run_program(main)
