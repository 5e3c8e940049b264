"""Packages that only some commands need, and the pip extras that install them."""

EXTRAS = {
    "array_record": "train",
    "grain": "train",
    "huggingface_hub": "hub",
    "jax2onnx": "onnx",
    "matplotlib": "dev",
    "ml_collections": "train",
    "optax": "train",
    "psutil": "dev",
    "ray": "ray",
    "scipy": "train",
    "starlette": "annotate",
    "tensorboardX": "train",
    "tensorflow_datasets": "train",
    "uvicorn": "annotate",
}


def missing_package(error: ModuleNotFoundError) -> str:
    """Return a message with the pip extra that provides the package whose import failed."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return f"{error}: install s3_jax again with its dependencies, pip install s3_jax"
    return f"this needs {package}, which is not installed: pip install 's3_jax[{EXTRAS[package]}]'"
