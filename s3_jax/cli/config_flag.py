"""The flag --config, which takes the name of a training configuration or your own file."""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from s3_jax.config import MODELS
from s3_jax.errors import InputError, reason
from s3_jax.remote import refuse_remote

_PACKAGE = Path(__file__).parents[1]
HELP = (
    "Training configuration: the name of a bundled one, such as smoke or train_s3_vitb:base, or a "
    "Python file that defines get_config(). The text after a colon is passed to get_config."
)


def define_config_flag() -> flags.FlagHolder:
    """Define --config, and with it --config.FIELD for every field of the configuration."""
    holder = config_flags.DEFINE_config_file("config", None, HELP)
    flags.FLAGS["config"].parser = _NamedConfigParser("config")
    return holder


def find_config(name: str) -> str:
    """Convert the value of --config to a file, with ":" and its argument if there is one.

    A file has precedence over a name. Networks trained with the published recipe have their own
    names: `train_s3_vitb:base` is `published:s3_vitb,base`.

    Raises:
      InputError: there is no such file or name.
    """
    refuse_remote(name, "--config")
    file, colon, argument = name.partition(":")
    stem = Path(file).stem
    network = stem.removeprefix("train_")
    if Path(file).is_file():
        return name
    if file not in (stem, f"configs/{stem}.py"):
        raise InputError(f"there is no file {file}")
    if stem in names():
        return f"{folder() / stem}.py{colon}{argument}"
    if stem != network and network in MODELS:
        return f"{folder() / 'published.py'}:{network},{argument or 'base'}"
    raise InputError(
        f"{file} is not a file, and no configuration of that name comes with s3_jax "
        f"(there are: {', '.join(names())}, and train_NETWORK for a published network)"
    )


def names() -> list[str]:
    """List the configurations that come with s3_jax."""
    return sorted(path.stem for path in folder().glob("*.py") if path.stem != "__init__")


def folder() -> Path:
    """Return the directory of the configurations.

    It is inside an installed package, but next to the package in a checkout.
    """
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


class _NamedConfigParser(ConfigFileFlagParser):
    def parse(self, path: str) -> Any:
        file = find_config(path)
        try:
            return super().parse(file)
        except (TypeError, ValueError) as error:  # its message is a traceback
            raise InputError(reason(error.__context__ or error)) from error
