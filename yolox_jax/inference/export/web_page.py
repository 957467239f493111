"""Writes a folder for any static web server: a page that detects in the browser, its model, and ONNX Runtime Web.

The page is in page/; it reads class names, input size and the certificate from the metadata of model.onnx. The runtime
is onnxruntime-web from npm, downloaded once into the cache folder. `npm_config_registry` names another registry.
"""

import importlib.resources
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from yolox_jax import storage
from yolox_jax.errors import UserError, writing
from yolox_jax.storage import Location
from yolox_jax.weights import download

PAGE = importlib.resources.files(__package__) / "page"
MODEL = "model.onnx"
INDEX = "index.html"
_GENERATOR = b'<meta name="generator" content="yolox_jax">'  # of our index.html, by which it is known
LEAST_CONF = 0.05  # of the model, unless a lower one is asked for: the slider of the page begins here

VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of npm's sha512-q0y+JrrtukXSzsBWEMcc…
_REGISTRY = "https://registry.npmjs.org"
# From names in the folder to those in the package. The page loads the first three, or, if there is a GPU, the others.
# Servers that do not know .mjs, such as nginx, send it as a type that browsers refuse to run.
RUNTIME = {
    "ort.wasm.min.js": "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.js": "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.js": "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.js": "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}


def prepare(folder: Location, log: Callable[[str], object] = print) -> None:
    """Checks the folder and downloads the runtime, so that what can fail does so before the work.

    Raises:
      UserError: the folder has other files, or cannot be written.
      DownloadError: the runtime cannot be downloaded.
    """
    if not _may_replace(folder):
        raise UserError(f"{folder} has other files", "give a new folder, or that of a page to replace")
    _runtime_package(log)
    if isinstance(folder, Path):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)


def _may_replace(folder: Location) -> bool:
    """Returns whether a folder is empty, a page of ours, or what an interrupted `place` left."""
    names = {name for name in storage.list_names(folder) if not name.endswith(".unfinished")}
    if INDEX in names:
        return _GENERATOR in storage.read_bytes(folder / INDEX)
    ours = {*RUNTIME, MODEL, *(each.name for each in PAGE.iterdir())}
    return not names or (names <= ours and not names.isdisjoint(RUNTIME))  # model.onnx alone may be the user's


def about_model(title: str, size_hw: tuple[int, int], conf: float, least_conf: float) -> dict[str, str]:
    """Returns what the page reads in the metadata of its model, besides class names and certificate.

    Args:
      title: the heading of the page.
      size_hw: H and W of the network's input.
      conf: the threshold that the page begins with.
      least_conf: that of the model.
    """
    return {"page": json.dumps({"title": title, "size_hw": size_hw, "conf": conf, "least_conf": least_conf})}


def write(folder: Path, model: bytes, log: Callable[[str], object] = print) -> None:
    """Writes a new folder."""
    with tarfile.open(_runtime_package(log)) as package:
        for name, packed in RUNTIME.items():
            file = package.extractfile(f"package/dist/{packed}")
            assert file is not None  # the package has the expected hash
            storage.write_bytes(folder / name, file.read())
    storage.write_bytes(folder / MODEL, model)
    for each in PAGE.iterdir():
        storage.write_bytes(folder / each.name, each.read_bytes())


def place(written: Path, folder: Location) -> int:
    """Copies what `write` wrote, in place of an older page, and returns the number of bytes.

    The runtime is first and index.html last: by them `prepare` knows a page whose copying was interrupted.
    """
    files = sorted(written.iterdir(), key=lambda each: (each.name not in RUNTIME, each.name == INDEX))
    for each in files:
        storage.write_bytes(folder / each.name, each.read_bytes())
    return sum(each.stat().st_size for each in files)


def _runtime_package(log: Callable[[str], object]) -> Path:
    variables = {name.lower(): value for name, value in os.environ.items()}  # npm takes both cases
    registry = variables.get("npm_config_registry") or _REGISTRY
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    return download.fetch_url(f"{address}#sha256={SHA256}", log=log)
