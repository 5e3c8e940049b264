"""Table of the commands of `s3`: module, purpose, and name in a checkout."""

from typing import NamedTuple


class Command(NamedTuple):
    """One command.

    module: of `s3_jax.cli`, which has its flags, its help text, and `main`.
    tool: the same command in a checkout without installation, `python -m tools.<tool>`.
    purpose: a line for `s3 --help`.
    """

    module: str
    tool: str
    purpose: str


COMMANDS = {
    "segment": Command("segment", "segment", "a video and its first mask in, all masks out"),
    "annotate": Command("annotate", "annotate", "paint, follow and correct masks in the browser"),
    "convert": Command("convert", "convert_checkpoint", "PyTorch weights to checkpoint, and back"),
    "push": Command("push", "push", "a network to the Hugging Face Hub"),
    "train": Command("train", "train", "train a network from a configuration"),
    "train-prompts": Command(
        "train_prompts", "train_prompts", "train clicks and boxes to masks on an encoder"
    ),
    "predict": Command("predict", "predict", "segment all videos of a benchmark"),
    "score": Command("score", "score", "J, F and J&F of masks, with a report to pass on"),
    "visualize": Command("visualize", "visualize", "sheets, overlays, probabilities, queries"),
    "export": Command("export", "export", "a network as a file that runs with JAX alone"),
    "plan": Command("plan", "plan", "memory and time on TPUs that are not here"),
    "prepare": Command("prepare", "prepare_dataset", "check a data set, store it for training"),
    "demo": Command("demo", "demo", "segment a clip that comes along, and say how well"),
    "merge-scores": Command("merge_scores", "merge_scores", "add up several runs of s3 predict"),
    "first-annotations": Command(
        "first_annotations", "first_annotations", "copy annotations, each object's first mask only"
    ),
    "baselines": Command("baselines", "baselines", "three methods without training, to compare"),
    "synthetic-video": Command(
        "synthetic_video", "make_synthetic_video", "a made-up video with exact masks"
    ),
    "crossing-videos": Command(
        "crossing_videos", "crossing_videos", "videos of objects that cross, to test identities"
    ),
    "demo-clip": Command("demo_clip", "make_demo_clip", "draw the clip of s3 demo again"),
    "bench frame": Command("bench.frame", "benchmark", "time of a frame, stage by stage"),
    "bench training": Command("bench.training", "benchmark_training", "time of a training step"),
    "bench curves": Command("bench.curves", "benchmark_curves", "speed against size, as charts"),
    "bench prompts": Command("bench.prompts", "benchmark_prompts", "J of clicks and boxes"),
    "bench data": Command("bench.data", "benchmark_data", "time to make training clips"),
    "bench metrics": Command("bench.metrics", "benchmark_metrics", "time to score masks"),
    "bench soak": Command("bench.soak", "soak", "a long video: do memory and threads stay?"),
    "bench devices": Command(
        "bench.devices", "spread_programs", "what several devices exchange and hold"
    ),
    "bench bfloat16": Command("bench.bfloat16", "bfloat16_errors", "errors of half precision"),
}
GROUPS: dict[str, tuple[str, ...]] = {
    "Segment videos": ("segment", "annotate", "visualize", "export", "demo"),
    "Benchmarks": (
        "predict",
        "score",
        "merge-scores",
        "first-annotations",
        "baselines",
        "crossing-videos",
    ),
    "Networks": (
        "convert",
        "push",
        "train",
        "train-prompts",
        "prepare",
        "synthetic-video",
        "plan",
    ),
    "Measure": tuple(name for name in COMMANDS if name.startswith("bench ")),
    "For work on s3_jax itself": ("demo-clip",),
}
# These run large compiled programs, and start again to have their memory in large pages.
LARGE_PAGES = frozenset(
    {"segment", "annotate", "train", "predict", "bench frame", "bench training", "bench curves"}
)
