"""Numbers of a config that no field takes, and arguments that name no field, are one message."""

import math

import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from tests.material import ROOT
from yolox_jax.cli import config_values, terminal
from yolox_jax.errors import UserError

# ml_collections loads the file of a config so.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**18, -(10**18)])
@pytest.mark.parametrize("field", ["data.prefetch", "eval.detect.num_candidates", "mosaic.scale"])
def test_a_number_that_is_not_finite_or_too_long_names_its_field(field, value):
    config = base.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({field: (0.5, value) if field == "mosaic.scale" else value})
    with pytest.raises(UserError, match=rf"config\.{field} is .*: give a finite number of at most 18 digits"):
        config_values.check_numbers(config)


@pytest.mark.parametrize(
    "argument", ["--config.=1", "--config..data=1", "--config.a b=1", "-config.data.", "--noconfig.="]
)
def test_an_argument_that_names_no_field_is_refused(argument):
    with pytest.raises(UserError, match="names no field"):
        config_values.check_names([argument])


def test_fields_of_a_tuple_and_texts_of_several_lines_are_names_of_fields():
    config_values.check_names(
        ["--config", "--config=a.py", "--config.mosaic.scale[0]=1", "--config.data.root=a\nb", "x"]
    )


@pytest.fixture
def parse(monkeypatch):
    """A function that parses a command line with a flag --config of its own."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)

    def parse(*arguments):
        argv = ["train.py", f"--config={ROOT / 'configs' / 'quickstart.py'}", *arguments]
        monkeypatch.setattr("sys.argv", argv)
        return terminal.parse_flags(argv)

    return parse


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.nothing.here=1", "error: --config has no field 'nothing'"),
        ("--config.nothing=1", "error: --config has no field 'nothing'"),
        ("--config.epochs=many", "error: flag --config.epochs=many: invalid literal"),
        ("--config.hsv.value=nan", "error: config.hsv.value is nan: give a finite number of at most 18 digits"),
        ("--config.=1", "error: --config.=1 names no field: set config fields by --config.name=value"),
    ],
)
def test_a_wrong_field_on_the_command_line_ends_the_program_with_one_message(parse, argument, message):
    with pytest.raises(SystemExit) as left:
        parse(argument)
    assert left.value.code.startswith(message)


def test_an_error_in_the_file_of_a_config_keeps_its_traceback(parse, tmp_path):
    (tmp_path / "own.py").write_text("def get_config():\n    return {}['a key']\n")
    with pytest.raises(Exception, match="a key"):
        parse(f"--config={tmp_path / 'own.py'}")
