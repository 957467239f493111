"""Gives process 0 the array slices that the other processes of a run wrote to disks of their own, through the bucket.

Each process writes its slices with orbax as on a shared disk, into a database of its own (ocdbt.process_<i>). Before
process 0 merges these databases into one index, it fetches the others'. What process 0 then hashes and commits is the
whole checkpoint.
"""

import shutil
from pathlib import Path

import jax

from yolox_jax import storage
from yolox_jax.storage import Location, Patience
from yolox_jax.training import hosts
from yolox_jax.weights import bucket_copy

_PREFIX = "slices-"


class Slices:
    """The exchange of one start of a run: slices that a killed one left behind have another name."""

    def __init__(self, run: Location, number: int, patience: Patience):
        """`number` is the same in all processes, and that of no earlier start."""
        self._folder = run / f"{_PREFIX}{number}"
        self._patience = patience

    def send(self, step: int, unfinished: Path) -> None:
        """Uploads what this process, not process 0, wrote of a checkpoint, and removes it from the disk."""
        target = self._folder / str(step) / str(jax.process_index())
        for name in storage.list_files(unfinished):
            if "/ocdbt.process_" in name:
                bucket_copy.copy_out(unfinished / name, target / name, self._patience)
        if unfinished.exists():
            shutil.rmtree(unfinished)

    def collect(self, step: int, unfinished: Path) -> None:
        """Downloads to process 0 what all others have sent."""
        folder = self._folder / str(step)

        def fetch(name: str) -> None:
            bucket_copy.copy_file(folder / name, unfinished / name.partition("/")[2], self._patience)

        storage.in_parallel(fetch, storage.list_files(folder, self._patience))
        storage.remove_tree(folder, self._patience)


def remove_leftovers(run: Location) -> None:
    """Removes the slices that killed runs left behind."""
    assert hosts.is_primary()
    for name in storage.list_names(run):
        if name.startswith(_PREFIX):
            storage.remove_tree(run / name)
