"""Measures how many training samples per second one core makes, with mosaic and mixup, and the share of each stage.

python -m benchmarks.input_pipeline --annotations=train.json --images=DIR [--peer=PATH | --epochs=N | --reduced=N]

Each size is measured in three modes. "cold": the beginning of a run, with an empty cache and the files dropped from
the page cache. "jpeg": every sample decodes its own image, since the cache holds only the mosaic window. "ram": every
image is in memory: resized to fit the input in our cache, decoded for the peer. --peer also measures the official
PyTorch YOLOX, from a checkout, in interleaved rounds in the same process and on the same core; it needs PyTorch.

--reduced compares config.data.reduced_decoding with decoding the whole, in mode "jpeg" and in interleaved rounds.
"""

import argparse
import atexit
import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import random
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2

from benchmarks import machine
from configs import base
from yolox_jax.augment import sample
from yolox_jax.cli import from_config
from yolox_jax.data import images
from yolox_jax.data.images import ImageConfig
from yolox_jax.data.prefetch import ReadConfig
from yolox_jax.data.sources import coco
from yolox_jax.data.train_loader import LoaderConfig, TrainLoader
from yolox_jax.data.views import cache

_WINDOW = 32  # positions: far fewer than images, so that in "jpeg" the cache helps little
_BATCH = 8
_SIZES = (640, 416)

# The timed stages: the module that looks the function up, its name there, and its name in the table.
_STAGES = (
    (coco.images, "read_annotated", "decode"),
    (cache.geometry, "fit", "fit"),
    (sample, "mosaic", "mosaic"),
    (sample, "mixup", "mixup"),
)


def recipe(source: coco.CocoSource, size: int) -> LoaderConfig:
    """Returns the loader config of yolox_s's recipe at an input size."""
    config = base.get_config()
    config.batch_size = _BATCH
    return from_config.loader_config(config, (size, size), from_config.schedule(config, len(source)))


def loader(source: coco.CocoSource, size: int, cache_images: int) -> TrainLoader:
    """Makes a loader of endless batches with the recipe of yolox_s, without threads."""
    config = dataclasses.replace(recipe(source, size), mosaic_window=_WINDOW)
    read = ReadConfig(threads=0, workers=0, prefetch=0, cache_bytes=cache_images * size * size * 3)
    return TrainLoader(source, config, num_steps=10**9, read=read)


def drop_from_memory(source: coco.CocoSource) -> None:
    """Drops the image files from the system's page cache."""
    for image in source.ground_truth()["images"]:
        with open(image["file_name"], "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def samples_per_second(make_one: Callable[[], Any], num: int, per_call: int = 1) -> float:
    """Times calls that make `per_call` samples each, until `num` samples are made."""
    start = time.perf_counter()
    for _ in range(num // per_call):
        make_one()
    return num / (time.perf_counter() - start)


@contextlib.contextmanager
def stage_times() -> Iterator[dict[str, float]]:
    """Collects the seconds spent in each stage within the context."""
    spent = {stage: 0.0 for *_, stage in _STAGES}

    def timed(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[stage] += time.perf_counter() - start

        return run

    with contextlib.ExitStack() as patches:
        for module, name, stage in _STAGES:
            patches.enter_context(mock.patch.object(module, name, timed(getattr(module, name), stage)))
        yield spent


def open_peer(checkout: Path, annotations: Path, images: Path) -> Callable[[int, bool], Callable[[], Any]]:
    """Returns a function (size, in RAM) -> a function that makes the next sample of the official code."""
    sys.path.insert(0, str(checkout))
    if importlib.util.find_spec("torchvision") is None:  # imported for its NMS, which samples do not need
        sys.modules["torchvision"] = types.ModuleType("torchvision")
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    data = importlib.import_module("yolox.data")
    folder = tempfile.TemporaryDirectory(prefix="yolox-peer-")
    atexit.register(folder.cleanup)
    root = Path(folder.name)
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").symlink_to(annotations.absolute())
    (root / "images").symlink_to(images.absolute(), target_is_directory=True)

    def open_size(size: int, in_ram: bool) -> Callable[[], Any]:
        dataset = data.COCODataset(str(root), "train.json", "images", (size, size))
        if in_ram:
            decoded = [dataset.load_image(index) for index in range(len(dataset))]
            dataset.load_image = decoded.__getitem__  # later stages write only into a resized copy
        transform = data.TrainTransform(max_labels=120)
        mosaics = data.MosaicDetection(dataset, (size, size), preproc=transform, mosaic_scale=(0.1, 2))
        order = random.Random(0)
        return lambda: mosaics[order.randrange(len(mosaics))]

    return open_size


def measure(source: coco.CocoSource, size: int, num: int, rounds: int, peer: Any) -> None:
    """Prints the lines of one size."""
    cold_rates = []
    for _ in range(rounds):
        drop_from_memory(source)
        with loader(source, size, _WINDOW + _BATCH) as batches:
            cold_rates.append(samples_per_second(functools.partial(next, batches), _WINDOW, _BATCH))
    print(f"{size:>5}  cold  {statistics.median(cold_rates):>7.0f}")

    for mode, cache_images in (("jpeg", _WINDOW + _BATCH), ("ram", len(source))):
        with loader(source, size, cache_images) as batches:
            make_ours = functools.partial(next, batches)
            samples_per_second(make_ours, 2 * len(source), _BATCH)  # warms up: every file has been read once
            with contextlib.redirect_stdout(sys.stderr):  # the official data set prints
                make_peers = peer(size, mode == "ram") if peer else None
            ours: list[float] = []
            peers: list[float] = []
            for _ in range(rounds):
                ours.append(samples_per_second(make_ours, num, _BATCH))
                if make_peers:
                    peers.append(samples_per_second(make_peers, num // 2))
            line = f"{size:>5}  {mode:<4}  {statistics.median(ours):>7.0f}"
            if peers:
                ratios = [our_rate / peer_rate for our_rate, peer_rate in zip(ours, peers, strict=True)]
                line += f"  {statistics.median(peers):>8.0f}  {statistics.median(ratios):>5.2f}"
                line += f"  ({min(ratios):.2f} to {max(ratios):.2f})"
            print(line, flush=True)
            with stage_times() as spent:
                start = time.perf_counter()
                samples_per_second(make_ours, num, _BATCH)
                total = time.perf_counter() - start
            shares = {stage: seconds / total for stage, seconds in spent.items()}
            shares["rest"] = 1 - sum(shares.values())
            print("             " + ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items()))


def enlarge(source: coco.CocoSource, times: int, folder: Path) -> Path:
    """Writes the images with so many times their sides as JPEGs into a folder. Returns their json."""
    truth = source.ground_truth()
    for image in truth["images"]:
        pixels = cv2.resize(images.read(image["file_name"]), None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
        name = f"{image['id']}.jpg"
        cv2.imwrite(str(folder / name), pixels)
        image |= {"file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]}
    for annotation in truth["annotations"]:
        annotation["bbox"] = [times * value for value in annotation["bbox"]]
    annotations = folder / "enlarged.json"
    annotations.write_text(json.dumps(truth))
    return annotations


def compare_reduced(annotations: Path, folder: Path, num: int, rounds: int) -> None:
    """Prints the samples a second with images decoded whole, and at a reduced scale."""
    print(" size  whole/s  reduced/s  ratio")
    for size in _SIZES:
        with contextlib.ExitStack() as opened:
            make = []
            for fit_hw in (None, (size, size)):
                source = coco.CocoSource(annotations, folder, image_config=ImageConfig(fit_hw=fit_hw))
                make.append(functools.partial(next, opened.enter_context(loader(source, size, _WINDOW + _BATCH))))
                samples_per_second(make[-1], _WINDOW, _BATCH)  # warms up
            rates = [[samples_per_second(each, num, _BATCH) for each in make] for _ in range(rounds)]
        whole, reduced = map(statistics.median, zip(*rates, strict=True))
        ratios = [reduced_rate / whole_rate for whole_rate, reduced_rate in rates]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{size:>5}  {whole:>7.0f}  {reduced:>9.0f}  {statistics.median(ratios):>5.2f}  {spread}", flush=True)


def watch_memory(source: coco.CocoSource, epochs: int) -> None:
    """Prints this process's memory after each epoch of the default loader."""
    steps = -(-len(source) // _BATCH)
    read = from_config.read_config(base.get_config())
    with TrainLoader(source, recipe(source, _SIZES[0]), epochs * steps, read=read) as batches:
        for step, _ in enumerate(batches, 1):
            if step % steps == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(f"epoch {step // steps:>3}: {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB", flush=True)


def main() -> None:
    material = Path(os.environ.get("YOLOX_JAX_MATERIAL", "")) / "data" / "bccd"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, default=material / "train.json", help="a COCO json")
    parser.add_argument("--images", type=Path, default=material / "images", help="the folder of its images")
    parser.add_argument("--peer", type=Path, help="a checkout of the official PyTorch YOLOX")
    parser.add_argument("--samples", type=int, default=160, help="samples per measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements; the medians are printed")
    parser.add_argument("--epochs", type=int, help="instead prints the memory after each of this many epochs")
    parser.add_argument("--reduced", type=int, metavar="N", help="compares, with the images enlarged N times; 1: as is")
    arguments = machine.parse_quiet(parser)
    if not arguments.annotations.is_file():
        parser.error(f"there is no file {arguments.annotations}: give --annotations and --images")

    if arguments.epochs:
        watch_memory(coco.CocoSource(arguments.annotations, arguments.images), arguments.epochs)
        return
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    cv2.setNumThreads(0)
    source = coco.CocoSource(arguments.annotations, arguments.images)
    print(f"{len(source)} images, one core ({core}), OpenCV without threads")
    if arguments.reduced:
        with tempfile.TemporaryDirectory(prefix="yolox-enlarged-") as temporary:
            annotations, folder = arguments.annotations, arguments.images
            if arguments.reduced > 1:
                annotations, folder = enlarge(source, arguments.reduced, Path(temporary)), Path(temporary)
            compare_reduced(annotations, folder, arguments.samples, arguments.rounds)
        return
    peer = open_peer(arguments.peer, arguments.annotations, arguments.images) if arguments.peer else None
    print(" size  mode     ours/s" + ("    peer/s  ratio" if peer else ""))
    for size in _SIZES:
        measure(source, size, arguments.samples, arguments.rounds, peer)


if __name__ == "__main__":
    main()
