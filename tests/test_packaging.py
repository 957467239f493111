"""`pip install .` installs the package, five console commands and the configs, and nothing else."""

import importlib.metadata
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

import yolox_jax
from tests.material import ROOT
from yolox_jax.cli import commands
from yolox_jax.errors import NotFoundError, UserError
from yolox_jax.inference.export import web_page

_BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "train.py", "eval.py")
_FOLDERS = ("yolox_jax", "configs", "tests")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the files that the wheel installs, built from a copy of the repository as pip does."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in _BUILT_FROM:
        shutil.copy(ROOT / name, copy / name)
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    built = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    finished = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def distribution(site):
    (info,) = site.glob("*.dist-info")
    return importlib.metadata.Distribution.at(info)


@pytest.mark.slow
def test_a_wheel_has_the_package_its_programs_and_configs_and_no_other_module(site):
    installed = {path.relative_to(site).as_posix() for path in site.rglob("*.py")}
    package = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("yolox_jax/**/*.py")}
    configs = {f"yolox_jax/programs/configs/{path.name}" for path in ROOT.glob("configs/*.py")}
    assert installed == package | configs | {"yolox_jax/programs/train.py", "yolox_jax/programs/eval.py"}
    assert (site / "yolox_jax" / "py.typed").is_file()
    assert (site / "yolox_jax" / "tools" / "selfcheck" / "reference.npz").is_file()
    pages = [path.relative_to(ROOT) for path in (*web_page.PAGE.iterdir(), ROOT / "yolox_jax/tools/review/sheet.html")]
    assert len(pages) > 9 and all((site / path).read_bytes() == (ROOT / path).read_bytes() for path in pages)
    for name in ("train.py", "eval.py"):
        assert (site / "yolox_jax" / "programs" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.slow
def test_a_wheel_has_the_version_the_requirements_and_the_extras(distribution):
    assert distribution.version == yolox_jax.__version__
    required = [line for line in distribution.requires if "extra ==" not in line]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert len(required) == sum(not line.startswith("#") for line in lines)
    assert set(distribution.metadata.get_all("Provides-Extra")) == {
        "plots",
        "onnx",
        "hub",
        "litert",
        "litert-int8",
        "supervision",
        "tpu-plan",
        "gpu-plan",
        "wandb",
        "mlflow",
        "gcs",
        "s3",
        "dev",
    }


def test_every_folder_of_the_package_is_named():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("yolox_jax/**/*.py")}
    assert set(listed) == folders | {"yolox_jax.programs", "yolox_jax.programs.configs"}


def test_the_extra_dev_is_requirements_dev():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    runtime, *lines = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert runtime == "-r requirements.txt" and lines == extra


def test_the_lowest_constraints_are_the_lower_bounds():
    requirements = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))
    bounds = re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirements, re.MULTILINE)
    lines = (ROOT / "constraints" / "lowest.txt").read_text().splitlines()
    assert lines[1:] == [f"{name}=={version}" for name, version in bounds]


@pytest.mark.parametrize("place", ["colab-2026-08", "kaggle-2026-08"])
def test_the_requirements_admit_what_a_place_has(place):
    lines = (ROOT / "requirements.txt").read_text().splitlines()[1:]
    needed = {each.name: each.specifier for each in map(Requirement, lines)}
    pins = [line for line in (ROOT / "constraints" / f"{place}.txt").read_text().splitlines() if line[0] != "#"]
    found = dict(line.split("==") for line in pins)
    refused = {name: version for name, version in found.items() if name in needed and version not in needed[name]}
    assert not refused and {"jax", "jaxlib", "flax", "orbax-checkpoint"} <= found.keys()


@pytest.mark.slow
def test_each_console_command_runs_an_existing_program(distribution, monkeypatch):
    entry_points = {each.name: each for each in distribution.entry_points if each.group == "console_scripts"}
    assert sorted(entry_points) == ["yolox-doctor", "yolox-eval", "yolox-export", "yolox-predict", "yolox-train"]
    ran = {}
    monkeypatch.setattr(sys, "argv", ["command"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: ran.update({path: run_name}))
    monkeypatch.setattr(runpy, "run_module", lambda name, run_name, alter_sys: ran.update({name: run_name}))
    for entry_point in entry_points.values():
        entry_point.load()()
    tools = [f"yolox_jax.tools.{name}" for name in ("doctor", "export", "predict")]
    assert ran == dict.fromkeys([*tools, str(ROOT / "train.py"), str(ROOT / "eval.py")], "__main__")
    for name in tools:
        assert importlib.util.find_spec(name) is not None


# Each ends with an error that it can find only after it has started and read its arguments.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "arguments", "message"),
    [
        ("commands.train()", ["--config=yolox_s", "--config.eval.metric=best"], "config.eval.metric is 'best'"),
        (
            "commands.doctor()",
            ["--config", "configs/finetune.py", "--config.input_size=(100, 100)"],
            "the input size is 100x100",
        ),
        ("commands.predict()", ["--weights=absent.pth", "street.jpg"], "there is no file or folder absent.pth"),
        (
            "import sys, yolox_jax as y\ntry: y.train('yolox_s', 'run', overrides={'eval.metric': 'best'})\n"
            + "except ValueError as error: sys.exit(str(error))",
            [],
            "config.eval.metric is 'best'",
        ),
        (
            "import runpy; runpy.run_module('yolox_jax.tools.show_batch', run_name='__main__')",
            ["--config=configs/finetune.py", "--config.data.root=absent"],
            "there is no",
        ),
    ],
)
def test_an_installed_program_runs_away_from_a_checkout(site, tmp_path, start, arguments, message):
    start = f"from yolox_jax.cli import commands; {start}"
    environment = os.environ | {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", start, *arguments]
    finished = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_config_is_found_by_path_and_then_by_its_name_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "yolox_s").write_text("")  # a file of the user takes precedence
    nano = str(ROOT / "configs" / "yolox_nano.py")
    for named, found in (
        ("yolox_nano", nano),
        ("configs/yolox_nano.py", nano),
        ("yolox_nano:large", f"{nano}:large"),
        ("mine.py", "mine.py"),
        ("yolox_s", "yolox_s"),
    ):
        assert commands.find_config(named) == found
    with pytest.raises(NotFoundError, match="there is no config absent: give a file, or one of finetune, quickstart"):
        commands.find_config("absent")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(UserError, match="notes.md is no config: give a .py file with a function get_config"):
        commands.find_config(str(tmp_path / "notes.md"))


def test_only_the_value_of_the_flag_config_is_searched_as_a_config():
    nano = str(ROOT / "configs" / "yolox_nano.py")
    given = ["--config=yolox_nano", "--config.init_from=yolox_nano", "--config", "yolox_nano", "--weights=yolox_nano"]
    found = [f"--config={nano}", "--config.init_from=yolox_nano", "--config", nano, "--weights=yolox_nano"]
    assert commands.with_found_configs(given) == found
