"""The folder that keeps downloads, compiled programs and copies from buckets."""

import os
from pathlib import Path

import platformdirs

from yolox_jax.errors import UserError


def cache_folder() -> Path:
    """Returns YOLOX_JAX_HOME or, if that is not set, the user's cache folder (~/.cache/yolox_jax on Linux).

    Weights are in the folder itself; below it, compiled programs in programs/, runs whose directory is in a bucket in
    runs/, and copies of checkpoints from buckets in copies/. The folder may not exist yet.

    Raises:
      UserError: the user has no home folder, or YOLOX_JAX_HOME is an address.
    """
    folder = os.environ.get("YOLOX_JAX_HOME")
    if folder and "://" in folder:  # Path would make a local folder of it
        raise UserError(f"YOLOX_JAX_HOME is {folder}", "give a local folder")
    try:
        path = Path(folder) if folder else platformdirs.user_cache_path("yolox_jax", appauthor=False)
        return path.expanduser().absolute()
    except RuntimeError as error:  # HOME is not set, and the password file does not list this user
        raise UserError("this user has no home folder for the cache", "set YOLOX_JAX_HOME to a folder") from error
