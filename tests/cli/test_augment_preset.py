"""A preset fills in what neither the command line nor the config's file has set, and the page lists its values."""

import ast
import re
import shlex

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import base, yolox_nano
from tests.material import ROOT
from yolox_jax.cli import from_config, terminal
from yolox_jax.cli.augment_preset import apply_preset

_PAGE = (ROOT / "docs" / "augmentation.md").read_text()
_PRESETS = [name for name in base.AUGMENT if name != "default"]
_SECTIONS = ("mosaic", "mixup", "hsv", "crop", "copy_paste", "cutout", "blur", "jpeg")
_NUMBERS = ("flip_prob", "vertical_flip_prob", "turn_prob", "perspective", "max_hidden", "gray_prob", "min_box_side")


def _flat(config):
    sections = {f"{name}.{field}": value for name in _SECTIONS for field, value in config[name].items()}
    return sections | {name: config[name] for name in _NUMBERS}


@pytest.mark.parametrize("name", _PRESETS)
def test_a_preset_sets_its_fields_and_no_others(name):
    config = base.get_config()
    config.augment = name
    apply_preset(config)
    before, after = _flat(base.get_config()), _flat(config)
    assert {field: after[field] for field in before if after[field] != before[field]} == base.AUGMENT[name]
    from_config.loader_config(config, (64, 64), from_config.schedule(config, 100))
    apply_preset(config)  # a second time changes nothing
    assert _flat(config) == after


def test_the_default_changes_nothing():
    config = base.get_config()
    apply_preset(config)
    assert config.to_dict() == base.get_config().to_dict()


def test_what_the_command_line_or_the_file_sets_stays():
    config = yolox_nano.get_config()
    own = {field: config.mosaic[field] for field in ("prob", "scale")}
    config.augment = "aerial"
    config.turn_prob = 0.5
    config.mixup.prob = 1.0
    apply_preset(config, given=["mixup.prob", "mosaic.degrees"])
    assert {field: config.mosaic[field] for field in own} == own
    assert (config.turn_prob, config.mixup.prob, config.vertical_flip_prob) == (0.5, 1.0, 0.5)


@pytest.fixture
def parsed(monkeypatch):
    """A function that parses a command line as programs do, and returns its config."""

    def parsed(*arguments):
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", None, "", flag_values=values)
        with monkeypatch.context() as patch:  # grain needs the process's own flags later
            patch.setattr(flags, "FLAGS", values)
            patch.setattr("sys.argv", ["program", *arguments])
            terminal.parse_flags(["program", *arguments])
        return values["config"].value

    return parsed


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_programs_apply_it_when_they_parse_their_flags(parsed):
    of_s = f"--config={ROOT / 'configs' / 'yolox_s.py'}"
    config = parsed(of_s, "--config.augment=documents", "--config.mosaic.degrees=7.5", "--config.mixup.prob=1.0")
    assert (config.flip_prob, config.mosaic.degrees, config.mixup.prob) == (0.0, 7.5, 1.0)
    with pytest.raises(SystemExit, match=r"error: config\.augment is 'sky': choose one of default, gentle, aerial, "):
        parsed(of_s, "--config.augment=sky")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("command", re.findall(r"^```sh\n(.*?)\n```", _PAGE, flags=re.MULTILINE | re.DOTALL))
def test_the_commands_of_the_page_make_a_batch(parsed, monkeypatch, tmp_path, command):
    (tmp_path / "my_augment.py").write_text(re.search(r"^```python\n(.*?)```", _PAGE, re.MULTILINE | re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(ROOT)
    python, dash_m, tool, *arguments = shlex.split(command)
    assert (python, dash_m, tool) == ("python", "-m", "yolox_jax.tools.show_batch")
    small = ["--config.data.kind=shapes", "--config.input_size=64", "--config.batch_size=2"]
    config = parsed(*(argument for argument in arguments if not argument.startswith("--output=")), *small)
    loaded, _ = from_config.load_batch(config, 0)
    assert loaded.batch.images.shape == (2, 64, 64, 3)


def test_a_config_of_something_else_is_left_alone():
    apply_preset(ConfigDict({"rate": 1.0}))


def test_the_page_has_every_field_with_its_default():
    rows = re.findall(r"^\| `config\.([\w.]+)` \| ([^|]+) \| [^|]+ \|$", _PAGE, flags=re.MULTILINE)
    assert {field: ast.literal_eval(value) for field, value in rows} == _flat(base.get_config())


def test_the_page_has_the_values_of_every_preset():
    header, *rows = re.findall(r"^\|((?:[^|\n]*\|){6})$", _PAGE, flags=re.MULTILINE)
    names = [cell.strip() for cell in header.split("|")][2:-1]
    assert names == _PRESETS
    listed = {name: {} for name in names}
    for row in rows[1:]:
        field, default, *values = [cell.strip().strip("`").removeprefix("config.") for cell in row.split("|")][:-1]
        assert ast.literal_eval(default) == _flat(base.get_config())[field]
        for name, value in zip(names, values, strict=True):
            if value:
                listed[name][field] = ast.literal_eval(value)
    assert listed == {name: base.AUGMENT[name] for name in _PRESETS}
