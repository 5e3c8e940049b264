"""Table of the commands of `s3`: module, purpose, and name in a checkout."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command of `s3`.

    module: the module of `s3_jax.cli` with the command's flags, its help text, and `main`.
    tool: name of the command in a checkout without installation, `python -m tools.<tool>`.
    purpose: one line for `s3 --help`.
    """

    module: str
    tool: str
    purpose: str


COMMANDS = {
    "segment": Command("segment", "segment", "segment a video, given masks of one frame"),
    "annotate": Command("annotate", "annotate", "paint, track and correct masks in the browser"),
    "convert": Command(
        "convert", "convert_checkpoint", "convert PyTorch weights to a checkpoint, and back"
    ),
    "push": Command("push", "push", "upload a network to the Hugging Face Hub"),
    "train": Command("train", "train", "train a network from a configuration"),
    "train-prompts": Command(
        "train_prompts", "train_prompts", "train a prompt head: clicks and boxes to masks"
    ),
    "predict": Command("predict", "predict", "segment all videos of a benchmark"),
    "score": Command("score", "score", "compute J, F and J&F of masks, with a report"),
    "visualize": Command(
        "visualize", "visualize", "draw sheets, overlays, probabilities and queries"
    ),
    "export": Command("export", "export", "write a network as a file that runs with JAX alone"),
    "plan": Command("plan", "plan", "estimate memory and time on TPUs you do not have"),
    "prepare": Command("prepare", "prepare_dataset", "check a data set and store it for training"),
    "demo": Command("demo", "demo", "segment the bundled clip and score the result"),
    "merge-scores": Command(
        "merge_scores", "merge_scores", "merge the probabilities of several runs"
    ),
    "first-annotations": Command(
        "first_annotations",
        "first_annotations",
        "copy annotations, keeping each object's first mask",
    ),
    "baselines": Command(
        "baselines", "baselines", "run three training-free methods for comparison"
    ),
    "synthetic-video": Command(
        "synthetic_video", "make_synthetic_video", "make a synthetic video with exact masks"
    ),
    "crossing-videos": Command(
        "crossing_videos", "crossing_videos", "make videos of crossing objects, to test identities"
    ),
    "demo-clip": Command("demo_clip", "make_demo_clip", "render the clip of s3 demo again"),
    "bench frame": Command("bench.frame", "benchmark", "time a frame, stage by stage"),
    "bench training": Command("bench.training", "benchmark_training", "time a training step"),
    "bench curves": Command(
        "bench.curves", "benchmark_curves", "measure speed against size, with charts"
    ),
    "bench prompts": Command(
        "bench.prompts", "benchmark_prompts", "score masks from clicks and boxes"
    ),
    "bench data": Command("bench.data", "benchmark_data", "time the preparation of training clips"),
    "bench metrics": Command("bench.metrics", "benchmark_metrics", "time the scoring of masks"),
    "bench soak": Command("bench.soak", "soak", "stream a long video and watch memory and threads"),
    "bench devices": Command(
        "bench.devices", "spread_programs", "measure what several devices exchange and hold"
    ),
    "bench bfloat16": Command(
        "bench.bfloat16", "bfloat16_errors", "measure the errors of bfloat16"
    ),
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
    "For developing s3_jax": ("demo-clip",),
}
# These run large compiled programs, and restart to get their memory in large pages.
LARGE_PAGES = frozenset(
    {"segment", "annotate", "train", "predict", "bench frame", "bench training", "bench curves"}
)
