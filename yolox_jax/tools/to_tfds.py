"""Converts a data set to the format of TensorFlow Datasets (tfds): few large files instead of many small ones.

python -m yolox_jax.tools.to_tfds --config=configs/yolox_s.py [--config.data.…] --output=DIR [--name=NAME]

The two splits of the config become "train" and "validation" of DIR/NAME/1.0.0, which config.data.kind=tfds reads.
Images that cannot be read are reported and left out; the exit code stays 0. Needs tensorflow-datasets, but not
TensorFlow. Several processes, joined as those of train.py (config.parallel.coordinator), share the files.
"""

import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from yolox_jax import storage
from yolox_jax.cli import from_config
from yolox_jax.cli.outputs import output_folder
from yolox_jax.cli.progress import print_progress
from yolox_jax.cli.terminal import joined, quiet_libraries, run_program
from yolox_jax.data.prefetch import Shard
from yolox_jax.data.sources import tfds_writer
from yolox_jax.data.sources.open import check_classes, open_split
from yolox_jax.errors import UserError
from yolox_jax.training import hosts

_CONFIG = config_flags.DEFINE_config_file("config", None, "The config whose data set is converted.", lock_config=True)
_OUTPUT = flags.DEFINE_string("output", None, "The folder in which NAME/1.0.0 is made.")
_NAME = flags.DEFINE_string("name", None, "The name of the data set; config.data.kind if not given.")
_MAX_SIDE = flags.DEFINE_integer(
    "max_side",
    None,
    "Shrinks larger images to this many pixels on the longer side, as JPEG. By default all images keep their bytes.",
)


def run(config: ConfigDict, output: Path, name: str, max_side: int | None = None, address: str = "") -> None:
    """Writes both splits, and prints the flags that read them, at `address` if `output` is uploaded to a bucket."""
    splits = {"train": open_split(config.data, "train"), "validation": open_split(config.data, "val")}
    check_classes(config.num_classes, splits["train"].class_names, splits["validation"].class_names)
    folder, num_written = tfds_writer.write(
        splits,
        output,
        name,
        max_side=max_side,
        threads=from_config.num_threads(config),
        progress=functools.partial(print_progress, what="read"),
        shard=Shard(jax.process_index(), jax.process_count()),
        exchange=functools.partial(_exchange, itertools.count()),
    )
    if not hosts.is_primary():
        return
    place = f"{address}/{folder.relative_to(output)}" if address else str(folder.absolute())
    numbers = ", ".join(f"{split} {number} images" for split, number in num_written.items())
    print(f"wrote {place if address else folder}: {numbers}")
    num_left_out = sum(map(len, splits.values())) - sum(num_written.values())
    if num_left_out:
        print(f"warning: {num_left_out} images could not be read and were left out", file=sys.stderr)
    print(f"read it with: --config.data.kind=tfds --config.data.root={place} ", end="")
    print("--config.data.train=train --config.data.val=validation")


def _exchange(calls: Iterator[int], content: bytes) -> list[bytes]:
    hosts.barrier(f"data set {next(calls)}", hosts.WORK_SECONDS)  # a large share takes long
    return hosts.gather(content)


def main() -> None:
    quiet_libraries()
    jax.config.update("jax_platforms", "cpu")  # the processes talk through it; accelerators are left to others
    config, where = _CONFIG.value, _CONFIG.value.parallel
    with (
        joined(where.coordinator, where.num_processes, where.process_id),
        output_folder(str(_OUTPUT.value)) as output,
    ):
        address = str(_OUTPUT.value) if storage.is_remote(str(_OUTPUT.value)) else ""
        if address and jax.process_count() > 1:
            raise UserError(
                f"{jax.process_count()} processes cannot write a data set into a bucket together ({address})",
                "give a folder that all of them see, or start one process",
            )
        name = _NAME.value or config.data.kind
        run(config, cast(Path, output).expanduser(), name, _MAX_SIDE.value, address.rstrip("/"))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "output"])
    run_program(main)
