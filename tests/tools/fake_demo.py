"""`python -m tests.tools.fake_demo` is the demo; instead of segmenting it leaves the true masks."""

from pathlib import Path

from s3_jax.cli import command, demo
from s3_jax.demo import clip
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask


def _leave_true_masks(*command: str) -> None:
    print(list(command))
    output = next(x.removeprefix("--output=") for x in command if x.startswith("--output="))
    (Path(output) / "masks").mkdir(parents=True)
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    for t, mask in enumerate(clip.true_masks()):
        write_mask(Path(output) / "masks" / f"{t:05d}.png", mask, encoding)


if __name__ == "__main__":
    demo._run = _leave_true_masks  # type: ignore[assignment]
    command.run(demo.main)
