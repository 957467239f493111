"""Sets the fields that config.augment names."""

from collections.abc import Collection

from ml_collections import ConfigDict

from yolox_jax.errors import UserError


def apply_preset(config: ConfigDict, given: Collection[str] = ()) -> None:
    """Sets each field of the preset that neither the command line nor the config's file has set.

    Args:
      config: changed in place.
      given: the names of the fields that the command line sets. A field whose value differs from configs/base.py is one
        that the config's file has set.

    Raises:
      UserError: there is no preset of this name.
    """
    if "augment" not in config:  # a config from elsewhere, such as one for another program
        return
    from configs import base  # not at the top: an installed package finds it once the program's flags are parsed

    if config.augment not in base.AUGMENT:
        raise UserError(f"config.augment is {config.augment!r}", f"choose one of {', '.join(base.AUGMENT)}")
    unchanged = base.get_config()
    for field, value in base.AUGMENT[config.augment].items():
        if field not in given and _get(config, field) == _get(unchanged, field):
            config.update_from_flattened_dict({field: value})


def _get(config: ConfigDict, field: str) -> object:
    section, _, name = field.rpartition(".")
    return (config[section] if section else config)[name]
