"""The import rules of docs/architecture.md, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.material import ROOT

# The layers, lowest first: a part may import those of lower layers and itself. Parts of one layer never import each other.
_LAYERS = (
    ("errors", "types"),
    ("boxes", "cache_folder", "locks", "mesh"),
    ("augment", "detection", "models"),
    ("data", "weights"),
    ("visualize",),
    ("inference",),
    ("evaluation", "training"),
    ("cli",),
    ("tools",),
)
_LAYER_OF = {part: number for number, parts in enumerate(_LAYERS) for part in parts}
# Which places may import a fenced library; a place is a path prefix.
_FENCES = {
    "flax.linen": ("yolox_jax/models/",),
    "optax": ("yolox_jax/training/",),
    "orbax": ("yolox_jax/weights/checkpoint.py", "yolox_jax/training/checkpoints.py"),
    "tensorboardX": ("yolox_jax/training/tensorboard.py",),
    "tensorflow_datasets": ("yolox_jax/data/",),
    "grain": ("yolox_jax/data/",),
    "filelock": ("yolox_jax/locks.py",),
    "platformdirs": ("yolox_jax/cache_folder.py",),
    "matplotlib": ("yolox_jax/evaluation/plots.py",),
    "onnx": ("yolox_jax/inference/",),
    "cv2": tuple(f"yolox_jax/{part}/" for part in ("data", "augment", "visualize", "inference", "tools")),
    "ml_collections": ("configs/", "train.py", "eval.py", "yolox_jax/cli/", "yolox_jax/tools/"),
}
_SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("configs/*.py"), *ROOT.glob("yolox_jax/**/*.py")]
)


def _imports(file: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively: say the whole path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


@pytest.mark.parametrize("file", [file for file in _SOURCES if file.startswith("yolox_jax/")])
def test_imports_point_down(file):
    part = file.split("/")[1].removesuffix(".py")
    if part == "__init__":
        return
    assert part in _LAYER_OF, f"{file}: say here which layer {part} is in"
    for name in _imports(file):
        assert not _within(name, "train") and not _within(name, "eval"), f"{file} imports {name}, a program"
        if _within(name, "yolox_jax"):
            other = (name.split(".") + [""])[1]
            is_below = other in _LAYER_OF and _LAYER_OF[other] < _LAYER_OF[part]
            assert other == part or is_below, f"{file} imports {name}: {part} may not import {other}"


@pytest.mark.parametrize("file", _SOURCES)
def test_fenced_libraries_stay_behind_their_fences(file):
    for name in _imports(file):
        assert name != "flax", f"{file} imports all of flax: name the part, so that linen's fence can be seen"
        for library, places in _FENCES.items():
            if _within(name, library):
                assert file.startswith(places), f"{file} imports {name}: only {', '.join(places)} may"


@pytest.mark.parametrize("file", [file for file in _SOURCES if file.startswith(("yolox_jax/", "configs/"))])
def test_only_programs_and_tools_know_configs_and_flags(file):
    if not file.startswith(("configs/", "yolox_jax/cli/", "yolox_jax/tools/")):
        for name in _imports(file):
            # grain's worker processes want flags that are parsed, program or not.
            assert not _within(name, "absl") or file == "yolox_jax/data/prefetch.py", f"{file} imports {name}"
            assert not _within(name, "configs"), f"{file} imports {name}"


def test_importing_the_package_alone_imports_no_library():
    program = "import sys, yolox_jax; print(yolox_jax.__version__, 'jax' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split()[1] == "False"


def test_no_file_is_a_drawer_for_everything():
    names = {Path(file).stem for file in _SOURCES}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_train_py_stays_readable():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 350
