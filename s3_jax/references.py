"""Lookup of the parts that a configuration names, by a short name or by an import path."""

import importlib
from collections.abc import Mapping
from typing import Any

from s3_jax.errors import InputError, reason


class MissingPartError(InputError):
    """Error for a named part that cannot be imported; the message names the part and the fix."""


def load(reference: str, known: Mapping[str, str], what: str) -> Any:
    """Return the object that a configuration names.

    Args:
      reference: a key of `known`, or `package.module:Name`.
      known: the built-in parts, short name -> `package.module:Name`.
      what: the kind of part, for messages.

    Raises:
      InputError: the short name is unknown, or the module has no such name.
      MissingPartError: the module cannot be imported.
    """
    module, _, name = known.get(reference, reference).partition(":")
    if not (module and name):
        raise InputError(
            f"{what} {reference!r} is unknown: choose one of {', '.join(known)}, or name your own "
            "as package.module:Name"
        )
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise MissingPartError(
            f"{what} {reference} cannot be imported ({reason(error)}): install its package, or put "
            "it on the path (PYTHONPATH)"
        ) from error
    if not hasattr(found, name):
        raise InputError(f"{what} {reference} does not exist: {found.__file__} has no {name}")
    return getattr(found, name)
