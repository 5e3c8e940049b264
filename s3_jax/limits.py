"""Budgets for the resources that a file may request, checked before memory or time is spent.

Each has a default that ordinary data never reaches. An environment variable changes them:

  S3_JAX_LIMITS=megapixels=200,objects=1000 s3 segment ...
"""

import os

from s3_jax.errors import InputError

VARIABLE = "S3_JAX_LIMITS"
DEFAULTS: dict[str, float] = {
    "megapixels": 64.0,  # of one picture or mask; an 8K video frame has 33
    "objects": 512.0,  # of one video
    "json_megabytes": 512.0,  # of one JSON file
    "json_depth": 64.0,  # nested brackets in a JSON file
    "pickle_operations": 3e6,  # in a PyTorch file, plus values it copies; a tensor takes about 30
    "pickle_number_keys": 10_000.0,  # keys that are not text in a PyTorch file's dictionaries
    "network_blocks": 200.0,  # in each part of a network
    "network_channels": 65_536.0,  # of a network; also limits all other numbers in its settings
}


def limit(name: str) -> float:
    """Return a budget from the environment, or its default.

    Raises:
      InputError: the environment names an unknown budget, or its value is not a positive number.
    """
    for item in filter(None, os.environ.get(VARIABLE, "").split(",")):
        key, _, value = item.partition("=")
        if key.strip() not in DEFAULTS:
            raise InputError(f"{VARIABLE}: {key!r} is not a limit; limits: {', '.join(DEFAULTS)}")
        if key.strip() == name:
            return _number(item, value)
    return DEFAULTS[name]


def require_within(name: str, amount: float, what: str) -> None:
    """Raise an InputError with a remedy if `amount` is above the budget `name`.

    Args:
      what: the file and its request, such as "a.png has 169 megapixels".
    """
    if amount > limit(name):
        raise InputError(f"{what}, above the limit of {limit(name):g}: {remedy(name, amount)}")


def remedy(name: str, amount: float) -> str:
    """Return the end of a message that explains how to allow `amount` under the budget `name`."""
    return f"if this is intended, set the environment variable {VARIABLE}={name}={amount:.6g}"


def _number(item: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not number > 0:
        raise InputError(f"{VARIABLE}: {item!r} needs a positive number after the =")
    return number
