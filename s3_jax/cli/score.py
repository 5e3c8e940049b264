r"""Score masks against annotations: J, F and J&F as the benchmarks define them.

  s3 score --results=DIR --annotations=DIR --output=DIR

Both directories have a folder of PNG masks for each sequence. The masks are palette, grey or RGB
images, in which 0 is background and 1, 2, ... are objects:

  results/bike/00000.png  00001.png ...      annotations/bike/00000.png  00001.png ...

The command prints a table and writes these files to --output:
  scores.json   everything, down to J and F of every object on every frame (0 to 1)
  scores.csv    one line per sequence and object
  report.html   tables, curves over time and the worst frames, in one file that you can share

Several results, separated by commas, are compared side by side:

  s3 score --results=runs/a,runs/b --annotations=DAVIS/Annotations/480p --output=DIR

Protocols (--protocol) decide what is scored:
  davis2016    one object, black-and-white masks; the first and last frames are not scored
  davis2017    objects of the first frame; the first and last frames are not scored
  mose         as davis2017
  youtube_vos  each object from the frame after its first one, as listed in --meta=meta.json;
               averages J and F of seen and unseen categories (G)
  lvos         each object from the frame after its first one; the last frame is not scored;
               with --unseen=FILE also seen and unseen sequences
  generic      each object from the frame after its first one
  binary       as generic; everything except the background is one object
  auto         davis2016 if the first annotations contain only 0 and 255, else davis2017;
               with --meta, lvos if objects have a frame_range, else youtube_vos

Results need a mask for every scored frame, with the size and the ids of the annotation. Otherwise
the command lists all problems and writes nothing. --allow_missing scores missing masks as empty,
and --allow_unknown_ids treats ids that are not annotated as background.

Examples:
  # a split
  s3 score ... --sequences=ImageSets/2017/val.txt
  # YouTube-VOS
  s3 score ... --protocol=youtube_vos --meta=valid/meta.json
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from absl import flags
from tqdm import tqdm

from s3_jax.benchmarks.protocols import (
    PROTOCOLS,
    Group,
    Protocol,
    SequenceMeta,
    group_of,
    read_meta,
)
from s3_jax.benchmarks.report import Report, terminal_table, write_csv, write_scores_json
from s3_jax.benchmarks.report_page import write_page
from s3_jax.benchmarks.score_folders import (
    choose_sequences,
    distinct_names,
    find_images,
    find_sequences,
    read_sequence_list,
)
from s3_jax.benchmarks.scoring import (
    SequenceScores,
    SequenceTask,
    looks_binary,
    refuse_missing,
    score_all,
)
from s3_jax.benchmarks.summary import summarize_run
from s3_jax.benchmarks.worst_frames import draw_worst_frames
from s3_jax.errors import InputError

RESULTS = flags.DEFINE_list(
    "results", None, "Directory of results, or several separated by commas. Required."
)
ANNOTATIONS = flags.DEFINE_string("annotations", None, "Directory of annotations. Required.")
OUTPUT = flags.DEFINE_string(
    "output", None, "Directory for the report. Replaces an earlier report. Required."
)
PROTOCOL = flags.DEFINE_enum(
    "protocol", "auto", ["auto", *PROTOCOLS], "What is scored, and how it is averaged; see above."
)
SEQUENCES = flags.DEFINE_string(
    "sequences",
    None,
    "Text file with the names of the sequences to score, one per line, such as the ImageSets of "
    "DAVIS. Default: all of --meta, else all annotated ones.",
)
META = flags.DEFINE_string(
    "meta",
    None,
    "meta.json of YouTube-VOS (objects with category and frames) or LVOS (objects with "
    "frame_range). Required for --protocol=youtube_vos.",
)
UNSEEN = flags.DEFINE_string(
    "unseen",
    None,
    "Text file with the categories or sequences that training did not see, one per line. "
    "Default for youtube_vos: all except the 65 categories of its training set.",
)
IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Directory of the frames, with a folder per sequence, on which to draw the worst masks. "
    "Default: JPEGImages beside Annotations.",
)
WORST_FRAMES = flags.DEFINE_integer(
    "worst_frames", 3, "Pictures per sequence in the HTML report; 0 for none.", lower_bound=0
)
ALLOW_MISSING = flags.DEFINE_bool(
    "allow_missing", False, "Score missing masks and sequences as empty instead of stopping."
)
ALLOW_UNKNOWN_IDS = flags.DEFINE_bool(
    "allow_unknown_ids", False, "Treat ids that are not annotated as background."
)
WORKERS = flags.DEFINE_integer(
    "workers", None, "Processes; each scores one sequence at a time. Default: all cores.", 1
)


def main() -> None:
    annotations, output = _required(ANNOTATIONS), _required(OUTPUT)
    sequences, meta = _sequences(annotations)
    protocol = _protocol(sequences, meta)
    unseen = frozenset(read_sequence_list(Path(UNSEEN.value))) if UNSEEN.value else None
    roots = [Path(root) for root in RESULTS.value or [] if root]
    if not roots:
        raise InputError("--results is missing: give the directory of the predicted masks")
    tasks = _tasks(protocol, sequences, meta, roots)
    if not ALLOW_MISSING.value:
        refuse_missing(tasks)
    image_root = find_images(sequences, Path(IMAGES.value) if IMAGES.value else None)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):  # fail now rather than after scoring
        scores = _scores(tasks)
    groups = _groups(protocol, scores, meta, unseen)
    runs = [
        summarize_run(name, str(root), [of_all[place] for of_all in scores], groups)
        for place, (name, root) in enumerate(zip(distinct_names(roots), roots, strict=True))
    ]
    report = Report(protocol, annotations, runs)
    pictures = draw_worst_frames(report, tasks, image_root, WORST_FRAMES.value)
    write_scores_json(output / "scores.json", report)
    write_csv(output / "scores.csv", report)
    write_page(output / "report.html", report, pictures)
    print(terminal_table(report))
    print(f"Written: {output}/scores.json, scores.csv, report.html")


def _required(flag: flags.FlagHolder[str | None]) -> Path:
    if not flag.value:
        raise InputError(f"--{flag.name} is missing (see --help)")
    return Path(flag.value)


def _sequences(annotations: Path) -> tuple[dict[str, Path], dict[str, SequenceMeta]]:
    """Return the annotation folders of the sequences to score, and the content of the meta file."""
    found = find_sequences(annotations, "--annotations")
    meta = read_meta(Path(META.value)) if META.value else {}
    listed = read_sequence_list(Path(SEQUENCES.value)) if SEQUENCES.value else None
    if meta and listed is not None:
        unlisted = [name for name in listed if name not in meta]
        if unlisted:
            raise InputError(
                f"{META.value} does not have {unlisted[0]} of {SEQUENCES.value}: give the files "
                "of one split"
            )
    source = SEQUENCES.value or META.value
    wanted = listed if listed is not None else (list(meta) or None)
    return choose_sequences(found, wanted, source), meta


def _protocol(sequences: Mapping[str, Path], meta: Mapping[str, SequenceMeta]) -> Protocol:
    name = PROTOCOL.value
    if name == "auto" and meta:
        spans = any(entry.span for objects in meta.values() for entry in objects.values())
        name = "lvos" if spans else "youtube_vos"
    elif name == "auto":
        name = "davis2016" if looks_binary(sequences.values()) else "davis2017"
    protocol = PROTOCOLS[name]
    if meta and protocol.objects == "first_frame":
        raise InputError(f"--meta does not apply to --protocol={name}: omit it")
    if UNSEEN.value and not protocol.grouped:
        raise InputError(f"--unseen does not apply to --protocol={name}: omit it")
    if name == "youtube_vos" and not meta:
        raise InputError(
            "--protocol=youtube_vos needs --meta=meta.json for categories and frames; without "
            "one, --protocol=generic averages over all objects"
        )
    return protocol


def _tasks(
    protocol: Protocol,
    sequences: Mapping[str, Path],
    meta: Mapping[str, SequenceMeta],
    roots: list[Path],
) -> list[SequenceTask]:
    results = [find_sequences(root, "--results") for root in roots]
    return [
        SequenceTask(
            name=name,
            annotations=folder,
            roots=tuple(roots),
            results=tuple(found.get(name) for found in results),
            protocol=protocol,
            meta=meta.get(name),
            allow_unknown_ids=ALLOW_UNKNOWN_IDS.value,
        )
        for name, folder in sequences.items()
    ]


def _scores(tasks: list[SequenceTask]) -> list[list[SequenceScores]]:
    workers = WORKERS.value or len(os.sched_getaffinity(0))
    with tqdm(total=len(tasks), unit="sequence", desc="scoring", leave=False) as bar:
        return score_all(tasks, workers, bar.update)


def _groups(
    protocol: Protocol,
    scores: list[list[SequenceScores]],
    meta: Mapping[str, SequenceMeta],
    unseen: frozenset[str] | None,
) -> dict[str, dict[int, Group | None]]:
    """Return "seen" or "unseen" for every object, by sequence and id."""
    groups = {
        first.name: {
            entry.object_id: group_of(
                protocol, first.name, meta.get(first.name, {}).get(entry.object_id), unseen
            )
            for entry in first.objects
        }
        for first, *_ in scores
    }
    if unseen and not any("unseen" in objects.values() for objects in groups.values()):
        raise InputError(
            f"{UNSEEN.value} names no category of the meta file and no scored sequence: give the "
            "list for this data set"
        )
    return groups
