"""A config that is loaded from Python is the one that the same command line gives."""

import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from configs import finetune
from tests.material import ROOT
from yolox_jax.cli import terminal
from yolox_jax.cli.load_config import load_config
from yolox_jax.errors import NotFoundError, UserError


def _from_command_line(monkeypatch, *arguments):
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "", lock_config=True, flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    argv = ["train.py", *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    terminal.parse_flags(argv)
    return config.value


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_overrides_are_the_fields_of_the_command_line(monkeypatch):
    overrides = {"data.root": Path("a b"), "batch_size": 4, "input_size": (64, 96), "augment": "aerial"}
    overrides["turn_prob"] = 0.0  # given, so that the preset leaves it
    given = [f"--config.{name}={value}" for name, value in overrides.items()]
    expected = _from_command_line(monkeypatch, "--config=finetune", *given)
    for config in ("finetune", "configs/finetune.py", ROOT / "configs" / "finetune.py", finetune.get_config()):
        assert load_config(config, overrides).to_dict() == expected.to_dict()


def test_a_config_of_the_user_is_not_changed():
    config = finetune.get_config()
    before = config.to_dict()
    loaded = load_config(config, {"batch_size": 3, "augment": "gentle"})
    assert config.to_dict() == before != loaded.to_dict()
    assert not config.is_locked and loaded.is_locked


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch_sise": 3}, 'no field batch_sise: Did you mean "batch_size" instead of "batch_sise"'),
        ({"data.rooot": "x"}, 'no field data.rooot: Did you mean "root"'),
        ({"batch_size.x": 3}, "no field batch_size.x: configs/base.py has all fields"),
        ({"data.also[3]": "x"}, r"no field data.also\[3\]"),
        ({"batch_size": "3"}, "config.batch_size is '3', of another type"),
        ({"data": 3}, "config.data is 3, of another type"),
        ({"lr_per_image": float("nan")}, "config.lr_per_image is nan"),
        ({"augment": "x"}, "config.augment is 'x': choose one of default"),
    ],
)
def test_a_wrong_override_is_one_message(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config("finetune", overrides)


def test_a_config_that_does_not_exist_is_one_message():
    with pytest.raises(NotFoundError, match="there is no config absent: give a file, or one of finetune"):
        load_config("absent")


def test_a_module_of_the_user_that_is_named_configs_stays(monkeypatch, tmp_path):
    mine = object()
    monkeypatch.setitem(sys.modules, "configs", mine)
    before = list(sys.path)
    load_config("finetune", {"augment": "gentle"})
    assert sys.modules["configs"] is mine and sys.path == before
    (tmp_path / "broken.py").write_text("import configs.base\n1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_config(tmp_path / "broken.py")
    assert sys.modules["configs"] is mine and sys.path == before
