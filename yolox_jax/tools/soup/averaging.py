"""Averages the weights of one network and measures BatchNorm statistics of the average anew."""

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from yolox_jax.cli import from_config
from yolox_jax.cli.progress import print_progress
from yolox_jax.data.eval_loader import eval_loader
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.views.selected import SelectedSource
from yolox_jax.detection.anchors import check_size
from yolox_jax.errors import UserError
from yolox_jax.inference.export.formats import FORMATS
from yolox_jax.inference.pretrained import Pretrained
from yolox_jax.models import measured_statistics
from yolox_jax.run.evaluate import Evaluator
from yolox_jax.weights import safetensors_file
from yolox_jax.weights.load import FoundWeights, find_weights, load_weights, read_about, read_official
from yolox_jax.weights.official import Variables, variant_of

WRITERS = {FORMATS[name][0]: FORMATS[name][1] for name in ("safetensors", "pth")}  # by the file's ending
_PREFETCH = 2  # batches


def average(all_variables: Sequence[Variables]) -> Variables:
    """Returns the mean of each parameter and statistic, summed in float64."""
    return cast(Variables, jax.tree.map(lambda *each: np.mean(each, 0, np.float64).astype(np.float32), *all_variables))


def unchanged_statistics(all_variables: Sequence[Variables]) -> tuple[str, ...]:
    """Returns patterns of the BatchNorms whose statistics are the same in all weights: they were frozen in training."""
    first, *others = (flatten_dict(each["batch_stats"], sep="/") for each in all_variables)
    equal = {path for path, array in first.items() if all(np.array_equal(array, other[path]) for other in others)}
    layers = [path.removesuffix("/mean") for path in equal if path.endswith("/mean")]
    return tuple(f"^{layer}/(mean|var)$" for layer in sorted(layers) if f"{layer}/var" in equal)


def find_all(specs: Sequence[str], output: str) -> list[FoundWeights]:
    """Finds the weights, and checks that they can be averaged. Copies checkpoints from a bucket and reads .pth files.

    Raises:
      UserError: they are fewer than two, cannot be found, are the same twice or are of different networks, or `output`
        cannot hold them.
    """
    if len(specs) < 2:
        raise UserError(f"--weights is {', '.join(specs) or 'empty'}", "give two or more, with commas between")
    if Path(output).suffix not in WRITERS:
        raise UserError(f"--output is {output}", f"choose a name that ends in {' or '.join(WRITERS)}")
    if Path(output).suffix == safetensors_file.ENDING:
        safetensors_file.check_installed()
    found = [find_weights(spec) for spec in specs]
    first_at: dict[str, FoundWeights] = {}
    for each in found:  # the best checkpoint of a run is often its last one
        place = os.path.realpath(each.checkpoint or each.spec)
        if place in first_at:
            raise UserError(f"{first_at[place].spec} and {each.spec} are the same weights", "leave one of them out")
        first_at[place] = each
    names = [_network_of(each) for each in found]
    if len(set(names)) > 1:
        listed = ", ".join(f"{each.spec} is a YOLOX-{name}" for each, name in zip(found, names, strict=True))
        raise UserError(f"--weights has different networks: {listed}", "average weights of one network")
    return found


def _network_of(weights: FoundWeights) -> str:
    if weights.meta is not None:
        return weights.meta.model
    about = read_about(weights)
    return variant_of(read_official(weights.spec)) if about is None else about.model


def training_batches(config: ConfigDict, num_batches: int) -> tuple[Iterator[np.ndarray], int]:
    """Returns batches of training images as evaluation letterboxes them, and their number: fewer in a small data set.

    They are chosen and mixed at random, the same way each time: neighbors in a data set are often alike, and a batch of
    them has too small a variance.
    """
    source = from_config.open_source(config, "train")
    mixed = np.random.Generator(np.random.Philox(0)).permutation(len(source))
    chosen = SelectedSource(source, mixed[: num_batches * config.eval.batch_size])
    batch = min(config.eval.batch_size, len(chosen))
    size_hw, threads = check_size(config.input_size), from_config.num_threads(config)
    batches = eval_loader(chosen, size_hw=size_hw, batch=batch, threads=threads, prefetch=_PREFETCH)
    count = len(chosen) // batch  # what is left over is padded in the last batch, which is not used
    return (cast(np.ndarray, each.images) for each in itertools.islice(batches, count)), count


def make_soup(config: ConfigDict, found: Sequence[FoundWeights], num_batches: int) -> Pretrained:
    """Averages the weights, prints the AP of each and of the average, and returns the better form of the average."""
    evaluator = Evaluator(config)
    model, class_names = evaluator.model, evaluator.source.class_names
    each = [load_weights(weights, config.model, class_names) for weights in found]

    def ap(variables: Variables, name: str) -> float:
        value = float(evaluator(variables).ap.stats["AP"])
        print(f"AP {value:.4f}  {name}", flush=True)
        return value

    aps = [ap(variables, weights.spec) for variables, weights in zip(each, found, strict=True)]
    soup = average(each)
    best = ap(soup, f"the average of {len(each)}, BatchNorm statistics averaged")
    if num_batches:
        batches, count = training_batches(config, num_batches)
        progress = functools.partial(print_progress, num_all=count, what="measured BatchNorm on", unit="batches")
        measured = measured_statistics.measure(model, soup, batches, unchanged_statistics(each), progress)
        if (measured_ap := ap(measured, f"the average of {len(each)}, BatchNorm statistics measured anew")) > best:
            soup, best = measured, measured_ap
    print(f"the average: {best - max(aps):+.4f} against the best, {best - sum(aps) / len(aps):+.4f} against their mean")
    reads = ImageConfig(sixteen_bit=config.data.sixteen_bit)
    return Pretrained(config.model, model, soup, class_names, evaluator.size_hw, reads)
