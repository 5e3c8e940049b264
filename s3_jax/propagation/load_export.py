r"""Runs a file that `s3 export` wrote: needs JAX and the file, nothing of this project.

  python load_export.py model.s3 first_frame.npy masks.npy second_frame.npy third_frame.npy ...

Frames are (height, width, 3) uint8 and masks (objects, height, width) in [0, 1], as `numpy.save`
writes them. For every frame after the first, <frame>.masks.npy gets the number of the object at
every pixel, 0 for background. Copy this file to where it is needed (`pip install jax flatbuffers`).
"""

import io
import json
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from jax import export


class Exported:
    """The file's programs: `start`, `step` and `encode`, and `about`, what it says of itself."""

    def __init__(self, path):
        with zipfile.ZipFile(path) as archive:
            self.about = json.loads(archive.read("about.json"))
            weights = np.load(io.BytesIO(archive.read("weights.npz")))
            self._weights = [jnp.asarray(weights[name]) for name in sorted(weights.files)]
            # The state is donated: it is updated where it lies.
            programs = {
                name: jax.jit(
                    export.deserialize(bytearray(archive.read(f"{name}.jax"))).call,
                    donate_argnums=1 if name == "step" else (),
                )
                for name in ("start", "step", "encode")
            }
        self._programs = programs

    def start(self, frame, masks):
        """The state after the first frame, given its objects' masks."""
        return self._programs["start"](self._weights, frame, jnp.asarray(masks, jnp.float32))

    def step(self, state, frame):
        """The next state, which replaces the one given, and probabilities, background first."""
        return self._programs["step"](self._weights, state, frame)

    def encode(self, frame):
        """The frame's features by name."""
        return self._programs["encode"](self._weights, frame)


def main(model, first, masks, *frames):
    exported = Exported(model)
    state = exported.start(np.load(first), np.load(masks))
    for path in frames:
        state, probabilities = exported.step(state, np.load(path))
        np.save(f"{path}.masks.npy", np.asarray(jnp.argmax(probabilities, axis=0), np.uint8))


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
