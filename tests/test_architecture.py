"""The rules of docs/architecture.md on imports and on the size of files and functions, read from the source.

Each test lists the faults of all files: with a test for each file, pytest would take longer than the checks.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

from tests.material import ROOT

# The layers, lowest first: a part may import lower layers and itself, but no other part of its own layer.
_LAYERS = (
    ("errors", "interrupts"),
    ("types",),
    ("boxes", "cache_folder", "compiler_options", "locks", "mesh"),
    ("storage",),
    ("augment", "detection", "models"),
    ("data", "weights"),
    ("visualize",),
    ("inference",),
    ("evaluation", "training"),
    ("cli",),
    ("run",),
    ("tools",),
)
_LAYER_OF = {part: number for number, parts in enumerate(_LAYERS) for part in parts}
# The places that may import a fenced library; a place is a prefix of a path.
_FENCES = {
    "flax.linen": ("yolox_jax/models/",),
    "optax": ("yolox_jax/training/",),
    "orbax": ("yolox_jax/weights/checkpoint.py", "yolox_jax/training/checkpoints.py"),
    "tensorboardX": ("yolox_jax/training/tensorboard.py",),
    "tensorflow_datasets": ("yolox_jax/data/",),
    "grain": ("yolox_jax/data/quiet_grain.py",),
    "filelock": ("yolox_jax/locks.py",),
    "fsspec": ("yolox_jax/storage/client.py",),
    "gcsfs": ("yolox_jax/storage/client.py",),
    "s3fs": ("yolox_jax/storage/client.py",),
    "aiohttp": ("yolox_jax/storage/client.py",),
    "google_crc32c": ("yolox_jax/weights/manifest.py",),
    "safetensors": ("yolox_jax/weights/safetensors_file.py",),
    "huggingface_hub": ("yolox_jax/weights/hub.py",),
    "platformdirs": ("yolox_jax/cache_folder.py",),
    "matplotlib": ("yolox_jax/evaluation/plots.py",),
    "IPython": ("yolox_jax/run/notebook.py",),
    "onnx": ("yolox_jax/inference/export/",),
    "ai_edge_litert": ("yolox_jax/inference/export/",),
    "litert_quantizer": ("yolox_jax/inference/export/",),
    "flatbuffers": ("yolox_jax/inference/export/",),
    "onnxruntime": ("yolox_jax/inference/export/",),
    "cv2": tuple(f"yolox_jax/{part}/" for part in ("data", "augment", "visualize", "inference", "tools")),
    "ml_collections": ("configs/", "train.py", "eval.py", "yolox_jax/cli/", "yolox_jax/run/", "yolox_jax/tools/"),
}


def _files(*patterns: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern))


_SOURCES = _files("*.py", "configs/*.py", "yolox_jax/**/*.py")
_ALL_CODE = [*_SOURCES, *_files("tests/**/*.py", "benchmarks/**/*.py")]
_PAGES = _files("yolox_jax/**/*.js", "yolox_jax/**/*.css")
_SETTINGS = _files("*.toml", "*.yml", "*.yaml", ".*.yaml", ".github/**/*.yml")
_MOST_LINES, _MOST_COLUMNS = 350, 120
_MOST_LINES_OF_A_FUNCTION = 60  # besides its docstring
_PLATFORM_TUNING = {"platform_dependent", "optimization_barrier", "custom_vjp", "custom_jvp", "default_backend"}
# These tell XLA or a user which platform it is: the code they run does not depend on it.
_MAY_NAME_THE_PLATFORM = {
    *("yolox_jax/training/state.py", "yolox_jax/inference/export/stablehlo.py"),
}
_REASON = "Long because"  # a docstring with these words gives the reason why its function is longer


@functools.cache
def _lines(file: str) -> list[str]:
    return (ROOT / file).read_text().splitlines()


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


@functools.cache
def _imports(file: str) -> frozenset[str]:
    names = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import: write the whole path"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _imports_of(files: list[str]) -> list[tuple[str, str]]:
    """Each file with each name that it imports."""
    return [(file, name) for file in files for name in sorted(_imports(file))]


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def test_imports_point_down():
    files = {file: file.split("/")[1].removesuffix(".py") for file in _SOURCES if file.startswith("yolox_jax/")}
    parts = set(files.values()) - {"__init__"}
    assert parts <= _LAYER_OF.keys(), "put these parts into a layer of this test"
    faults = []
    for file, name in _imports_of([file for file, part in files.items() if part != "__init__"]):
        part, other = files[file], (name.split(".") + [""])[1]
        if _within(name, "train") or _within(name, "eval"):
            faults.append(f"{file} imports {name}, a program")
        elif _within(name, "yolox_jax") and other != part and _LAYER_OF.get(other, len(_LAYERS)) >= _LAYER_OF[part]:
            faults.append(f"{file} imports {name}: {part} may not import {other}")
    assert not faults, "\n".join(faults)


def test_fenced_libraries_stay_behind_their_fences():
    faults = []
    for file, name in _imports_of(_SOURCES):
        if name == "flax":
            faults.append(f"{file} imports all of flax: import its part, so that the fence of linen can be checked")
        for library, places in _FENCES.items():
            if _within(name, library) and not file.startswith(places):
                faults.append(f"{file} imports {name}: only {', '.join(places)} may")
    assert not faults, "\n".join(faults)


def test_only_programs_and_tools_import_configs_and_flags():
    may = ("train.py", "eval.py", "configs/", "yolox_jax/cli/", "yolox_jax/tools/")
    found = _imports_of([file for file in _SOURCES if not file.startswith(may)])
    # grain's worker processes need parsed flags, even outside a program, and its import logs by absl.
    may_have_flags = {"yolox_jax/data/prefetch.py", "yolox_jax/data/quiet_grain.py"}
    faults = [f"{file} imports {name}" for file, name in found if _within(name, "configs")]
    faults += [f"{file} imports {name}" for file, name in found if _within(name, "absl") and file not in may_have_flags]
    assert not faults, "\n".join(faults)


def test_importing_the_package_alone_imports_no_library():
    program = "import sys, yolox_jax; print(yolox_jax.__version__, 'jax' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split()[1] == "False"


def test_no_file_has_a_name_that_fits_anything():
    names = {Path(file).stem for file in _SOURCES}
    assert not names & {"utils", "util", "common", "helpers", "misc"}


def test_a_file_has_350_lines_at_most():
    lengths = {file: len(_lines(file)) for file in [*_ALL_CODE, *_PAGES]}
    faults = [f"{file} has {length} lines" for file, length in lengths.items() if length > _MOST_LINES]
    assert not faults, "\n".join(faults)


def test_a_line_has_120_columns_at_most():  # those of the documents are in tests/test_docs.py
    files = [*_ALL_CODE, *_PAGES, *_SETTINGS]
    lines = [(f"{file}:{number}", line) for file in files for number, line in enumerate(_lines(file), start=1)]
    faults = [place for place, line in lines if len(line) > _MOST_COLUMNS]
    assert not faults, "\n".join(faults)


def test_a_function_has_60_lines_at_most_or_its_docstring_gives_the_reason():
    faults = []
    for file in _ALL_CODE:
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                num_lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
                if num_lines > _MOST_LINES_OF_A_FUNCTION and _REASON not in docstring:
                    faults.append(f"{file}: {node.name} has {num_lines} lines")
    assert not faults, "\n".join(faults)


def test_only_kernels_ask_for_the_platform_or_replace_gradients():
    faults = []
    for file in (file for file in _SOURCES if "/kernels/" not in file):
        names = {node.attr for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute)}
        names |= {name.rsplit(".", 1)[-1] for name in _imports(file)}
        allowed = {"default_backend"} if file in _MAY_NAME_THE_PLATFORM else set()
        faults += [f"{file} uses {name}" for name in sorted(names & _PLATFORM_TUNING - allowed)]
    assert not faults, "\n".join(faults)
