"""Lets all processes of a program read the same checkpoint of a run that still trains."""

import jax

from yolox_jax import storage
from yolox_jax.training import hosts
from yolox_jax.weights import checkpoint, download, hub


def agreed(weights: str) -> str:
    """Returns the weights that a user named, or, if they are a run and the processes several, process 0's checkpoint.

    The last checkpoint of a run may be another one a moment later. All processes must call this.
    """
    if jax.process_count() == 1 or weights.startswith(hub.SCHEME) or download.is_url(weights):
        return weights
    found = checkpoint.locate(storage.resolve(weights))  # in each: a mistake is an error of all
    return hosts.gather(str(found or weights).encode())[0].decode()
