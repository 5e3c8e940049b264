r"""Score masks from clicks and boxes: J after each click, and from a box.

  s3 bench prompts --output=curve --name=davis_first_frames \
      --images=DAVIS/JPEGImages/480p --masks=DAVIS/Annotations/480p

--images and --masks are folders; separate several with commas to combine them. A folder of folders
(videos) contributes the first picture of each. A folder of pictures contributes one in --every. A
mask has the name of its picture, with ".png". 0 is background and every other value is an object;
the largest object is used. 255 is not an object if there are others.

The first click is on the innermost point of the object. Each further click is on the innermost
point of the missing or wrong region. The box is the bounding box of the object.

OpenCV's GrabCut gets the same clicks and box (--nograb_cut leaves it out). It takes the clicks and
the area outside a box as certain. A disc around the first click, with a radius of a quarter of the
short side, is probably the object. It runs for five iterations.

Files in --output:
  <name>.csv   J for every picture
  <name>.png   the curve of the mean J
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import flags, logging
from PIL import Image

from s3_jax.benchmarks.clicks import (
    Answer,
    Example,
    boxed,
    clicked,
    grab_cut_answers,
    prompter_answers,
)
from s3_jax.cli.compilation import prepare_compilation
from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.media.mask_files import read_mask
from s3_jax.media.writers import write_csv

OUTPUT = flags.DEFINE_string("output", None, "Directory for the results. Required.")
NAME = flags.DEFINE_string("name", "clicks", "Name of the result files.")
IMAGES = flags.DEFINE_list("images", [], "Folders of pictures, or of videos. Required.")
MASKS = flags.DEFINE_list("masks", [], "Folders of their masks, in the same order. Required.")
EVERY = flags.DEFINE_integer("every", 1, "Use one picture in this many.", lower_bound=1)
CLICKS = flags.DEFINE_integer("clicks", 8, "Clicks on each object.", lower_bound=1)
CHECKPOINT = flags.DEFINE_string("checkpoint", "s3_lite", "Network with a prompt head.")
GRAB_CUT = flags.DEFINE_bool("grab_cut", True, "Also run OpenCV's GrabCut.")

VOID = 255
Rows = dict[str, list[list[float]]]


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    if not OUTPUT.value or not IMAGES.value or len(IMAGES.value) != len(MASKS.value):
        raise InputError("give --output, and --images and --masks, as many folders of each")
    prepare_compilation()
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    names, rows = _measure(_methods())
    header = ["picture", "method", *_columns()]
    lines = [[name, method, *(f"{x:.4f}" for x in values)]
             for method, every in rows.items()
             for name, values in zip(names, every, strict=True)]  # fmt: skip
    write_csv(output / f"{NAME.value}.csv", [header, *lines])
    _draw(output / f"{NAME.value}.png", rows, len(names))
    for method, every in rows.items():
        mean = np.mean(every, 0)
        print(f"{method:9s}", *(f"{c} {x:.3f}" for c, x in zip(_columns(), mean, strict=True)))


def _columns() -> list[str]:
    return [*(f"J_{i + 1}" for i in range(CLICKS.value)), "J_box"]


def _methods() -> dict[str, Callable[[Example], Answer]]:
    from s3_jax.prompting import Prompter

    prompter = Prompter(CHECKPOINT.value)
    ours = {Path(CHECKPOINT.value).name: lambda one: prompter_answers(prompter, one.image)}
    return ours | ({"GrabCut": lambda one: grab_cut_answers(one.image)} if GRAB_CUT.value else {})


def _measure(methods: dict[str, Callable[[Example], Answer]]) -> tuple[list[str], Rows]:
    """Return the names of the pictures, and J of every method for each."""
    names: list[str] = []
    rows: Rows = {method: [] for method in methods}
    for example in _examples():
        names.append(example.name)
        for method, answers in methods.items():
            answer = answers(example)
            values = [*clicked(answer, example.mask, CLICKS.value), boxed(answer, example.mask)]
            rows[method].append(values)
            print(f"{example.name:32s} {method:9s}", *(f"{x:.3f}" for x in values), flush=True)
    if not names:
        raise InputError(f"{', '.join(IMAGES.value)}: no picture with an object")
    return names, rows


def _examples() -> Iterator[Example]:
    for images, masks in zip(map(Path, IMAGES.value), map(Path, MASKS.value), strict=True):
        for picture in _pictures(images):
            mask = (masks / picture.relative_to(images)).with_suffix(".png")
            ids = read_mask(mask).ids
            values, counts = np.unique(ids[(ids > 0) & (ids != VOID)], return_counts=True)
            if values.size or (ids == VOID).any():
                chosen = values[counts.argmax()] if values.size else VOID
                name = f"{picture.parent.name}/{picture.stem}"
                yield Example(name, np.array(Image.open(picture).convert("RGB")), ids == chosen)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of pictures")
    videos = sorted(path for path in folder.iterdir() if path.is_dir())
    if videos:
        return [min(video.glob("*.jpg")) for video in videos if any(video.glob("*.jpg"))]
    return sorted(folder.glob("*.jpg"))[:: EVERY.value]


def _draw(path: Path, rows: Rows, count: int) -> None:
    """Plot the mean J of every method against clicks, and from a box as a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), dpi=100, layout="constrained")
    axes = figure.subplots()
    clicks = range(1, CLICKS.value + 1)
    for i, (method, every) in enumerate(rows.items()):
        mean = np.mean(every, 0)
        axes.plot(clicks, mean[:-1], "o-", color=f"C{i}", label=f"{method}, clicks")
        axes.axhline(mean[-1], linestyle="--", color=f"C{i}", label=f"{method}, box")
    axes.set(title=f"{NAME.value}: {count} objects", xlabel="clicks", ylabel="mean J", ylim=(0, 1))
    axes.set_xticks(clicks)
    axes.grid(color="0.87")
    axes.legend(loc="lower right", frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
