"""The console commands of an installed package. Each runs a program as a checkout runs it: yolox-train is train.py.

A wheel has train.py, eval.py and configs/ in yolox_jax/programs, where pyproject.toml puts them. All programs take a
config of the project by its name too (--config=yolox_s), or by its path in a checkout; a file that is there comes first.
"""

import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "programs"
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent  # has train.py, eval.py and configs/


def train() -> None:
    _run_file("train.py")


def evaluate() -> None:
    _run_file("eval.py")


def predict() -> None:
    _run_tool("predict")


def export() -> None:
    _run_tool("export")


def doctor() -> None:
    _run_tool("doctor")


def find_config(named: str) -> str:
    """The file that --config names, in the project or elsewhere. A FileNotFoundError where there is none."""
    path, colon, argument = named.partition(":")  # ml_collections hands what follows a colon to get_config
    candidates = (Path(path), ROOT / path, ROOT / "configs" / f"{path}.py")
    found = next((str(candidate) for candidate in candidates if candidate.is_file()), None)
    if found is None:
        own = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"base"})
        raise FileNotFoundError(f"there is no config {path}: give a file, or one of {', '.join(own)}")
    return f"{found}{colon}{argument}"


def with_found_configs(arguments: list[str]) -> list[str]:
    """The arguments, the value of --config made a file's path."""
    found = list(arguments)
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            found[place] = f"{flag}={find_config(value)}"
        elif place + 1 < len(arguments):
            found[place + 1] = find_config(arguments[place + 1])
    return found


def prepare(argv: list[str]) -> list[str]:
    """The words of a command line, the config found, and configs/ to be imported from as beside train.py."""
    sys.path.insert(0, str(ROOT))
    return with_found_configs(argv)


def how_to_run(program: str) -> list[str]:
    """The words that start "train" or "eval" where this runs."""
    return [f"yolox-{program}"] if ROOT == _INSTALLED else ["python", f"{program}.py"]


def _run_file(name: str) -> None:
    runpy.run_path(str(ROOT / name), run_name="__main__")


def _run_tool(name: str) -> None:
    runpy.run_module(f"yolox_jax.tools.{name}", run_name="__main__", alter_sys=True)
