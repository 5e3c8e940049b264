"""S3 video object segmentation (ICLR 2025) in JAX and Flax: the names that most programs need.

    config, variables = s3_jax.load_model("s3_lite")
    settings = s3_jax.PropagationConfig.suiting(config, long_term=True)
    session = s3_jax.Session(config, variables, settings)
    session.add(first_mask)  # (H, W) ids, 0 is background
    for result in session.propagate(frames):  # (H, W, 3) uint8 each
        ids, confidence = result.index_mask(), result.confidence

`Session` segments one video frame by frame. It is built on pure functions: `step` for one frame and
`scan` for many, on a `VideoState` that comes from `init_state` and receives masks from `annotate`.
These in turn call `segment` and `remember` on a `Network`. Each name is imported, and JAX with it,
when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from s3_jax.checkpoints.model import load_model, save_model
    from s3_jax.config import MODELS, ModelConfig, PropagationConfig
    from s3_jax.errors import InputError
    from s3_jax.prompting import Prompter, prompt
    from s3_jax.propagation.frame import Network, remember, segment
    from s3_jax.propagation.scan import scan
    from s3_jax.propagation.session import FrameResult, Session
    from s3_jax.propagation.state import VideoState, init_state
    from s3_jax.propagation.step import annotate, step

__all__ = [
    "MODELS",
    "FrameResult",
    "InputError",
    "ModelConfig",
    "Network",
    "Prompter",
    "PropagationConfig",
    "Session",
    "VideoState",
    "annotate",
    "init_state",
    "load_model",
    "prompt",
    "remember",
    "save_model",
    "scan",
    "segment",
    "step",
]
_MODULES = {
    "s3_jax.checkpoints.model": ("load_model", "save_model"),
    "s3_jax.config": ("MODELS", "ModelConfig", "PropagationConfig"),
    "s3_jax.errors": ("InputError",),
    "s3_jax.prompting": ("Prompter", "prompt"),
    "s3_jax.propagation.frame": ("Network", "remember", "segment"),
    "s3_jax.propagation.scan": ("scan",),
    "s3_jax.propagation.session": ("FrameResult", "Session"),
    "s3_jax.propagation.state": ("VideoState", "init_state"),
    "s3_jax.propagation.step": ("annotate", "step"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 's3_jax' has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
