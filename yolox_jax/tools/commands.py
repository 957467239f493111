"""The console commands of an installed package. Each runs a program as a checkout runs it: yolox-train is train.py.

A wheel has train.py, eval.py and configs/ in yolox_jax/programs, where pyproject.toml puts them. The commands take a
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
    """The file that --config names; `named` itself where the project has none of that name either."""
    path, colon, argument = named.partition(":")  # ml_collections hands what follows a colon to get_config
    candidates = (Path(path), ROOT / path, ROOT / "configs" / f"{path}.py")
    found = next((str(candidate) for candidate in candidates if candidate.is_file()), path)
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


def _prepare() -> None:
    sys.argv[1:] = with_found_configs(sys.argv[1:])
    sys.path.insert(0, str(ROOT))  # configs import configs.base, as they do beside train.py


def _run_file(name: str) -> None:
    _prepare()
    runpy.run_path(str(ROOT / name), run_name="__main__")


def _run_tool(name: str) -> None:
    _prepare()
    runpy.run_module(f"yolox_jax.tools.{name}", run_name="__main__", alter_sys=True)
