"""The console commands of an installed package, such as yolox-train, and the search for the file that --config names.

Each command runs a program just as a checkout does: yolox-train is train.py. A wheel holds train.py, eval.py and
configs/ in yolox_jax/programs, where pyproject.toml puts them. --config is a file, or names a config of the project by
its path in a checkout or by its name alone (yolox_s).
"""

import contextlib
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

from yolox_jax import interrupts
from yolox_jax.errors import NotFoundError, UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "programs"
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent  # holds train.py, eval.py and configs/


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
    """Finds the file that --config names: an existing file first, then a config of the project.

    Raises:
      UserError: there is neither, or the file is not Python.
    """
    path, colon, argument = named.partition(":")  # ml_collections passes what follows the colon to get_config
    candidates = (Path(path), ROOT / path, ROOT / "configs" / f"{path}.py")
    found = next((str(candidate) for candidate in candidates if candidate.is_file()), None)
    if found is None:
        own = sorted({path.stem for path in (ROOT / "configs").glob("*.py")} - {"base"})
        raise NotFoundError(f"there is no config {path}", f"give a file, or one of {', '.join(own)}")
    if Path(found).suffix not in (".py", ""):
        raise UserError(f"{found} is no config", "give a .py file with a function get_config")
    return f"{found}{colon}{argument}"


def with_found_configs(arguments: list[str]) -> list[str]:
    """Replaces the value of --config by the path of its file, and leaves the other arguments as they are."""
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
    """Makes configs/ importable from any directory, and returns the arguments with the path of the config's file."""
    sys.path.insert(0, str(ROOT))
    return with_found_configs(argv)


@contextlib.contextmanager
def own_configs() -> Iterator[None]:
    """Makes configs/ importable inside the block only: a user's process may have a module of that name."""
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if re.match(r"configs(\.|$)", name)}
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
        for name in [name for name in sys.modules if re.match(r"configs(\.|$)", name)]:
            del sys.modules[name]
        sys.modules.update(others)


def how_to_run(program: str) -> list[str]:
    """Returns the command that runs "train" or "eval" in this installation: a console command, or python and a file."""
    return [f"yolox-{program}"] if ROOT == _INSTALLED else ["python", f"{program}.py"]


def _run_file(name: str) -> None:
    interrupts.end_at_ctrl_c()
    runpy.run_path(str(ROOT / name), run_name="__main__")


def _run_tool(name: str) -> None:
    interrupts.end_at_ctrl_c()
    runpy.run_module(f"yolox_jax.tools.{name}", run_name="__main__", alter_sys=True)
