"""Run a file that `s3 export` wrote; needs JAX and the file, nothing else of this project.

  python load_export.py model.s3 first_frame.npy masks.npy second_frame.npy third_frame.npy ...

Frames are (height, width, 3) uint8 and masks (objects, height, width) in [0, 1], as `numpy.save`
writes them. For every frame after the first, the object number of every pixel, 0 for background,
is written to <frame>.masks.npy. Copy this file to where it is needed
(`pip install jax flatbuffers`).

The file holds programs, which run on this machine: load no file from people whose programs you
would not run. Checksums reveal damage, not malice. Custom calls, through which a program reaches
code outside itself, are refused.
"""

import hashlib
import io
import json
import re
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

PROGRAMS = ("start", "step", "encode")
SPLIT = ("start", "encode", "read", "decode")


class Exported:
    """Programs of a file (`start`, `step` and `encode`), and its description, `about`.

    In a file of `s3 export --split`, the step has three parts, which may be called separately:
    `encode` (a frame alone, for example ahead of time), `read` and `decode`.

    calls: names of custom calls that its programs may make; s3_jax's own parts make none.

    Raises ValueError, with the file's name, if the file is damaged or of another kind, or if its
    programs make other custom calls.
    """

    def __init__(self, path, calls=()):
        self.about, parts = _read(path)
        weights = np.load(io.BytesIO(parts["weights.npz"]))
        self._weights = [jnp.asarray(weights[name]) for name in sorted(weights.files)]
        # The state is donated, so that it is updated in place.
        self._programs = {
            name: jax.jit(
                _program(path, name, parts[f"{name}.jax"], calls).call,
                donate_argnums=1 if name in ("step", "read", "decode") else (),
            )
            for name in _names(parts)
        }

    def start(self, frame, masks):
        """Return the state after the first frame, given its objects' masks."""
        return self._programs["start"](self._weights, frame, jnp.asarray(masks, jnp.float32))

    def step(self, state, frame):
        """Return the next state and probabilities, background first; consumes the given state."""
        if "step" in self._programs:
            return self._programs["step"](self._weights, state, frame)
        features = self.encode(frame)
        state, readout = self.read(state, features)
        return self.decode(state, frame, features, readout)

    def encode(self, frame):
        """Return the frame's features by name."""
        return self._programs["encode"](self._weights, frame)

    def read(self, state, features):
        """Return the state and the readout of every object; consumes the given state."""
        return self._programs["read"](self._weights, state, features)

    def decode(self, state, frame, features, readout):
        """Return the next state and probabilities; consumes the given state."""
        return self._programs["decode"](self._weights, state, frame, features, readout)


def _names(parts):
    """Return the names of a file's programs, given its parts or their names."""
    return SPLIT if "read.jax" in parts else PROGRAMS


def _read(path):
    """Return the file's description and its other parts, compared with their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("about.json"))
            names = ("weights.npz", *(f"{name}.jax" for name in _names(archive.namelist())))
            parts = {name: archive.read(name) for name in names}
            recorded = about["sha256"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no file of s3 export: export it again") from error
    for name, content in parts.items():
        if recorded.get(name) != hashlib.sha256(content).hexdigest():
            raise ValueError(f"{path} is damaged ({name} has changed): export it again")
    return about, parts


def _program(path, name, content, allowed):
    try:
        program = export.deserialize(bytearray(content))
        text = program.mlir_module()
    except Exception as error:  # any error in JAX
        raise ValueError(f"{path}: JAX cannot read its program {name}: export it again") from error
    calls = re.findall(r'custom_call(?:" *\(| @"?([\w.]+)"?\()?', text)
    unknown = sorted({call or "something without a name" for call in calls} - {*allowed})
    if unknown:
        raise ValueError(
            f"{path}: its program {name} calls {unknown[0]}, code outside of the file: if this is "
            "intended, allow it with Exported(path, calls=[...])"
        )
    return program


def main(model, first, masks, *frames):
    """Segment frames with an exported model; write `<frame>.masks.npy` for each."""
    print(f"{model} contains programs that will run now: use only files you trust", file=sys.stderr)
    exported = Exported(model)
    state = exported.start(np.load(first), np.load(masks))
    for path in frames:
        state, probabilities = exported.step(state, np.load(path))
        np.save(f"{path}.masks.npy", np.asarray(jnp.argmax(probabilities, axis=0), np.uint8))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"load_export.py: {error}")
