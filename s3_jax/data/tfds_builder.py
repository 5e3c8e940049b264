"""TFDS builder that stores annotated videos as ArrayRecord, with the features of `davis`.

    builder = VideoBuilder("my_videos", Path("prepared"), entries, examples)
    builder.write()

Frames are stored as their files' bytes, segmentations as grey PNGs whose values are ids.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from s3_jax.data.records import VIDEOS, Entry, VideoRecord, features_of

SPLIT = "train"


class VideoBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Builder of a data set with one split, in `directory / name / version`.

    entries: index entries of the stored videos, in order; they are stored in the metadata.
    records: returns the videos of the entries; called when they are written.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. This keeps TFDS from looking for checksums beside the code, for which
    # it would import an optional package.
    code_path = None

    def __init__(
        self,
        name: str,
        directory: Path,
        entries: list[Entry],
        records: Callable[[], Iterable[VideoRecord]],
    ):
        self.name = name
        self._entries = entries
        self._records = records
        super().__init__(data_dir=directory, file_format="array_record")

    def write(self) -> Path:
        """Write all videos under a temporary name, move them into place and return their directory.

        Raises:
          OSError: the disk is full, or permission is missing.
        """
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        tfds.disable_progress_bar()
        logging.set_verbosity(logging.WARNING)
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),  # TFDS prints messages about downloading
            tempfile.TemporaryDirectory() as downloads,
            _features_in_order(),
        ):
            self.download_and_prepare(download_dir=downloads, download_config=config)
        return Path(self.data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        stored = [
            {"name": entry.name, "num_frames": entry.num_frames, "empty": sorted(entry.empty)}
            for entry in self._entries
        ]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Videos with object masks.",
            features=features_of(encoded=False),
            metadata=tfds.core.MetadataDict({VIDEOS: {SPLIT: stored}}),
            disable_shuffling=True,  # entries and videos must stay in the same order
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, record in enumerate(self._records()):
            frames = [io.BytesIO(image) for image in record.frames]
            masks = [io.BytesIO(mask) for mask in record.segmentations]
            metadata = {"num_frames": len(frames), "video_name": record.name}
            yield key, {"video": {"frames": frames, "segmentations": masks}, "metadata": metadata}


@contextlib.contextmanager
def _features_in_order() -> Iterator[None]:
    """Make TFDS write a record's features in a fixed order, so that equal data give equal bytes.

    Otherwise, Protocol Buffers write a map in an order that differs between processes.
    """

    def serialize(serializer: ExampleSerializer, example: Any) -> bytes:
        return serializer.get_tf_example(example).SerializeToString(deterministic=True)

    before = ExampleSerializer.serialize_example
    ExampleSerializer.serialize_example = serialize
    try:
        yield
    finally:
        ExampleSerializer.serialize_example = before
