"""The packages of a wheel; everything else about it is in pyproject.toml.

`configs/` stays beside the package in a checkout and is `s3_jax.configs` in a wheel.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["s3_jax", "s3_jax.*"]), "s3_jax.configs"],
    package_dir={"s3_jax.configs": "configs"},
    package_data={"s3_jax": ["**/*"]},  # weights, the demo's clip, py.typed
    exclude_package_data={"": ["**/__pycache__/*"]},
)
