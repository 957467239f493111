"""Times detection, from letterboxed uint8 images to boxes after NMS, in float32 on the CPU.

python -m benchmarks.inference --images=DIR [--case=nano:416:1 …] [--weights=nano=yolox_nano.pth …]
    [--threads=2] [--rounds=15] [--cpu_kernels=auto] [--peer=PATH [--peer-onnx=nano=FILE …]]

Every contender includes decoding, score threshold 0.001 and NMS at IoU 0.65. --peer also times the official PyTorch
YOLOX, from a checkout, as its eval.py runs it, with and without its --fuse, in interleaved rounds in the same process;
it needs PyTorch. --peer-onnx also times an official .onnx file in ONNX Runtime, followed by the official decoding and
NMS. A model without --weights has random weights and a raised objectness bias, so that a fifth of the anchors enters
NMS, as with trained weights.
"""

import argparse
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.official import Official
from benchmarks.turns import OURS, print_times, take_turns, use_cores
from yolox_jax.augment import geometry
from yolox_jax.compiler_options import choose_cpu_kernels
from yolox_jax.data import images
from yolox_jax.inference.predict import DetectConfig, compile_predict, make_predict
from yolox_jax.mesh import make_mesh, place, platform_of
from yolox_jax.models import yolox
from yolox_jax.models.folding import fold_batch_norm
from yolox_jax.training import state
from yolox_jax.training.host_memory import keep_freed_memory
from yolox_jax.weights import official

_CONFIG = DetectConfig()
_SHARE_ABOVE_CONF = 0.2
_MANY_CALLS = 1_000_000  # as in a long run, where compiling takes no time by comparison
_CASES = ("nano:416:1", "nano:416:8", "s:640:1", "s:640:8")


def read_images(folder: Path, size: int, batch: int) -> np.ndarray:
    """Reads the folder's first images by name, letterboxed: [B, H, W, 3] uint8."""
    paths = sorted(folder.iterdir())[:batch]
    if len(paths) < batch:
        raise SystemExit(
            f"--images={folder} has {len(paths)} files, but a batch needs {batch}: give a folder with more"
        )
    return np.stack([geometry.letterbox(images.read(path), (size, size))[0] for path in paths])


def open_weights(name: str, path: Path | None, images_BHW3: np.ndarray) -> Any:
    """Reads the file's variables; without a file, returns random ones that detect something in these images."""
    model = yolox.create(name)
    if path:
        return official.from_state_dict(official.load_pth(path), model)
    variables = jax.tree.map(np.array, state.init_variables(model, seed=0))
    predictions = jax.jit(functools.partial(model.apply, train=False))(variables, images_BHW3.astype(np.float32))
    obj_logit = np.asarray(predictions.obj_logits)
    cls_prob = jax.nn.sigmoid(predictions.cls_logits.max(axis=-1))
    needed_logit = -jnp.log(cls_prob / _CONFIG.conf - 1)  # objectness at which the score is `conf`
    raise_by = np.quantile(needed_logit - obj_logit, _SHARE_ABOVE_CONF)
    for level in variables["params"]["head"]["obj_preds"].values():
        level["bias"] += raise_by
    return variables


def ours(name: str, variables: Any, images_BHW3: np.ndarray, cpu_kernels: str) -> Callable[[], int]:
    """Returns a function that detects objects in the batch and counts them."""
    mesh = make_mesh(1)
    kernels = choose_cpu_kernels(cpu_kernels, platform_of(mesh), num_calls=_MANY_CALLS)
    model = yolox.create(name, cpu_kernels=kernels)
    folded = fold_batch_norm(model, variables, platform_of(mesh))
    batch_size, *size_hw, _ = images_BHW3.shape
    predict = compile_predict(make_predict(model, mesh, _CONFIG), folded, tuple(size_hw), batch_size, kernels)
    on_device = place(folded, mesh)
    return lambda: int(jax.device_get(predict(on_device, images_BHW3)).mask.sum())


def by_pytorch(peer: Official, model: Any, images_BHW3: np.ndarray) -> Callable[[], int]:
    tensor = peer.images(images_BHW3)
    model.eval()

    def run() -> int:
        with peer.torch.no_grad():
            return _num_boxes(peer.utils.postprocess(model(tensor), 80, _CONFIG.conf, _CONFIG.iou))

    return run


def by_onnx(peer: Official, model: Any, file: Path, images_BHW3: np.ndarray, threads: int) -> Callable[[], int]:
    """Returns a function that runs an .onnx file, image by image if its batch size is fixed at one."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    array_B3HW = peer.images(images_BHW3).numpy()
    (input_,) = session.get_inputs()
    at_a_time = input_.shape[0] if isinstance(input_.shape[0], int) else len(array_B3HW)
    model.eval()
    with peer.torch.no_grad():
        model(peer.images(images_BHW3[:1]))  # lets the head record the sizes of its levels, which decoding needs

    def run() -> int:
        parts = np.split(array_B3HW, len(array_B3HW) // at_a_time)
        raw = np.concatenate([session.run(None, {input_.name: part})[0] for part in parts])
        decoded = model.head.decode_outputs(peer.torch.from_numpy(raw), dtype="torch.FloatTensor")
        return _num_boxes(peer.utils.postprocess(decoded, 80, _CONFIG.conf, _CONFIG.iou))

    return run


def _num_boxes(found: list[Any]) -> int:
    return sum(len(boxes) for boxes in found if boxes is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--case", action="append", help="MODEL:SIZE:BATCH; may be repeated")
    parser.add_argument("--weights", action="append", default=[], help="MODEL=official .pth; may be repeated")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads of each contender")
    parser.add_argument("--rounds", type=int, default=15, help="timed calls; the medians are printed")
    parser.add_argument("--cpu_kernels", default="auto", help="auto, onednn or xla, as config.cpu_kernels")
    parser.add_argument("--peer", type=Path, help="a checkout of the official PyTorch YOLOX")
    parser.add_argument("--peer-onnx", action="append", default=[], help="MODEL=official .onnx; may be repeated")
    arguments = machine.parse_quiet(parser)
    if arguments.peer_onnx and not arguments.peer:
        parser.error("--peer-onnx needs --peer for its decoding and NMS")
    use_cores(arguments.threads)
    keep_freed_memory()  # as train.py does; affects the peer too
    weights, onnx_files = (dict(_by_model(pairs)) for pairs in (arguments.weights, arguments.peer_onnx))
    peer = Official(arguments.peer, arguments.threads) if arguments.peer else None
    print(f"{arguments.threads} threads, float32")
    for case in arguments.case or _CASES:
        name, size, batch = case.split(":")
        images_BHW3 = read_images(arguments.images, int(size), int(batch))
        variables = open_weights(name, weights.get(name), images_BHW3)
        contenders = {OURS: ours(name, variables, images_BHW3, arguments.cpu_kernels)}
        if peer:
            _, model = peer.create(name, variables)
            contenders["official PyTorch"] = by_pytorch(peer, model, images_BHW3)
            if name in onnx_files:
                contenders["ONNX Runtime"] = by_onnx(peer, model, onnx_files[name], images_BHW3, arguments.threads)
            fused = peer.utils.fuse_model(peer.create(name, variables)[1])
            contenders["official, --fuse"] = by_pytorch(peer, fused, images_BHW3)
        found = ", ".join(f"{contender} {run()}" for contender, run in contenders.items())
        print(f"       boxes detected: {found}")
        print_times(f"{name:<4} {size:>4} x{batch:<2}", take_turns(contenders, arguments.rounds), int(batch))


def _by_model(pairs: list[str]) -> list[tuple[str, Path]]:
    split = [pair.partition("=") for pair in pairs]
    return [(name, Path(path)) for name, _, path in split]


if __name__ == "__main__":
    main()
