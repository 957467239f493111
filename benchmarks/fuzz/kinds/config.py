"""Fields of the config on the command line, judged by their ranges: no number may be NaN, infinite or negative."""

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import train
from benchmarks.fuzz.change import Change, Judged, Kind
from configs import quickstart
from yolox_jax.cli import terminal
from yolox_jax.cli.commands import ROOT
from yolox_jax.run.loop import open_log
from yolox_jax.run.prepare import prepare
from yolox_jax.training.history import NEW
from yolox_jax.training.open_directory import opened
from yolox_jax.training.profiling import StepTrace
from yolox_jax.training.save_due import has_stalled

_VALUES = (
    *(
        "",
        "0",
        "-1",
        "1",
        "2",
        "1.5",
        "-0.5",
        "1e-300",
        "1e300",
        "nan",
        "-inf",
        "inf",
        "1e400",
        "9" * 400,
        "None",
        "True",
    ),
    *("x", "1,5", "1_0", "0x10", " 7", "٣", "é", "a" * 200, "[]", "()", "{}", "(64, 64)", "(64, 64, 64)", "(0, 64)"),
    *("(nan, 1)", "(-1, 2)", "('a', 'b')", "[[1], 2]", "64", "'64'", "1000000000000", "-1000000000000", "None,None"),
    *("../x", "/dev/zero", ".", "*", "%s", "trapped.Feature", "__import__('trapped')", "[*range(10)]", "(1,)*9", "#"),
)
_NOT_READ_HERE = ("parallel.",)  # processes are joined before the config is read further


def make(folder: Path) -> None:
    (folder / "arguments.json").write_text("[]")


def change(folder: Path, rng: random.Random) -> Change:
    fields = [field for field in _fields() if not field.startswith(_NOT_READ_HERE)]
    chosen = rng.random()
    names: tuple[str, ...] = ("flag", "argument", "--config", "no config")
    if chosen < 0.9:
        field, value = rng.choice(fields), rng.choice(_VALUES)
        arguments = [f"--config.{field}={value}"]
        names = (field.rpartition(".")[2].replace("_", " "),)
    else:
        arguments = rng.choice(
            (["--config.x=1"], ["--config.data=1"], ["--config.data.x.y=1"], ["--config.=1"], ["--config"])
            + (
                ["--config=nowhere.py"],
                ["--config=."],
                ["--config=/dev/zero"],
                ["--x"],
                ["--config.epochs"],
                ["--workdir"],
            )
        )
    (folder / "arguments.json").write_text(json.dumps(arguments))
    return Change(" ".join(arguments)[:100], names=names, expected=arguments)


def _fields() -> dict[str, Any]:
    """Returns the default of each field by its full name."""
    return dict(_flat(quickstart.get_config().to_dict()))


def _flat(section: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in section.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def read(folder: Path) -> dict[str, Any]:
    """Parses the command line of train.py, and builds everything that it builds before its first step."""
    given = json.loads((folder / "arguments.json").read_text())
    used = ["--config.data.shapes.num_train=16", "--config.data.shapes.num_val=8"]
    used += ["--config.multiscale.enabled=true", "--config.hsv.enabled=true"]
    # ml_collections looks for the fields that are given in sys.argv.
    sys.argv = ["train.py", f"--config={ROOT}/configs/quickstart.py", *used, "--workdir=run", *given]
    terminal.parse_flags(sys.argv)
    config = train._CONFIG.value
    with opened(folder / "run", config.resume) as directory:
        run = prepare(config, directory)
        has_stalled({}, config.patience, 0)
        StepTrace(directory.path / "profile", 0, config.profile)
        open_log(run, NEW).close()
    return dict(_flat(config.to_dict()))


def judge(folder: Path, change: Change, result: dict[str, Any]) -> Judged:
    for name, value in result.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if is_number and not 0 <= number < math.inf:
                return Judged(f"config.{name} is {number}")
    for argument in change.expected or ():
        name, _, text = argument.removeprefix("--config.").partition("=")
        number = _number(text)
        if name in result and number is not None and isinstance(result[name], int | float) and result[name] != number:
            return Judged(f"config.{name} is {result[name]}, not {number}")
    return Judged()


def _number(text: str) -> float | None:
    try:
        return 1.0 if text == "True" else float(text)
    except ValueError:
        return None


KIND = Kind("config", make, change, read, judge)
