"""Record of a run over many videos: settings, versions, speed and memory."""

import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3_jax.errors import InputError, reason
from s3_jax.files import Lock
from s3_jax.media.run_json import Kind, differences, new_record, read_record, write_record
from s3_jax.segmentation.run_folder import Identity


class RunRecord:
    """The file `run.json` of an output directory, or `run_<i>_of_<n>.json` if n processes share it.

    Raises:
      InputError: the directory has results of a run with other settings or without a record, or is
        in use by another process.
    """

    def __init__(
        self,
        output: Path,
        identity: Identity,
        shard: tuple[int, int],
        overwrite: bool = False,
        kind: Kind = "prediction",
    ):
        self.shard = shard
        index, count = shard
        name = "run.json" if count == 1 else f"run_{index}_of_{count}.json"
        self._path = output / name
        self._values = new_record(kind, identity)
        output.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(output, shared=count > 1)
        if overwrite:
            _remove_other_runs(output, identity)
        else:
            _refuse_other_run(output, identity)

    def note(self, **values: Any) -> None:
        """Add values and write the file."""
        self._values |= values
        write_record(self._path, self._values)

    def finish(
        self,
        devices: Sequence[Any],
        records: Mapping[str, Mapping[str, Any]],
        problems: Mapping[str, str],
    ) -> None:
        """Add the final measurements; mark the run as finished if there are no problems.

        Args:
          devices: JAX devices, or descriptions of other processes' devices.
          records: records of the finished videos.
          problems: problems of the other videos.
        """
        self.note(
            frames=sum(record["frames"] for record in records.values()),
            **speed(records.values()),
            peak_memory=peak_host_memory(),
            devices=describe_devices(devices),
            videos={name: record.get("notes", {}) for name, record in records.items()},
            problems=dict(problems),
            finished=not problems,
        )

    def summary(self) -> str:
        """Return frames, speed and memory as text."""
        warm = self._values["frames_per_second_warm"]
        rate = f", {warm:.2f} frames/s on each device" if warm else ""
        peak = self._values["peak_memory"] / 2**30
        return f"{self._values['frames']} frames{rate}, {peak:.1f} GiB of memory at most"


def read_run_records(output: Path) -> list[dict[str, Any]]:
    """Return the records in an output directory.

    Raises:
      InputError: a record is damaged.
    """
    records = []
    for path in sorted(output.glob("run*.json")):
        try:
            records.append(read_record(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({reason(error)}): delete it") from error
    return records


def _remove_other_runs(output: Path, identity: Identity) -> None:
    """Delete records with other settings, and damaged ones."""
    for path in output.glob("run*.json"):
        try:
            same = not differences(read_record(path)["settings"], identity)
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            path.unlink(missing_ok=True)


def _refuse_other_run(output: Path, identity: Identity) -> None:
    records = read_run_records(output)
    if not records and (output / "Annotations").exists():
        raise InputError(
            f"{output / 'Annotations'} exists already and was not made by s3 predict: choose "
            "another --output"
        )
    for record in records:
        for name, old, new in differences(record["settings"], identity):
            raise InputError(
                f"{output} holds a run with another {name} ({old}, now {new}): choose another "
                "--output or pass --overwrite"
            )


def describe_devices(devices: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the kind and the peak memory in bytes (None if unknown) of JAX devices."""
    return [
        device
        if isinstance(device, dict)
        else {
            "device": str(device),
            "kind": device.device_kind,
            "peak_memory": (device.memory_stats() or {}).get("peak_bytes_in_use"),
        }
        for device in devices
    ]


def peak_host_memory() -> int:
    """Return the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def speed(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the frames per second of one device over finished videos.

    One value includes compilation; the other excludes the first frames of every video. Both include
    reading and writing.
    """
    notes = [record.get("notes", {}) for record in records]
    total = {key: float(sum(note.get(key, 0) for note in notes))
             for key in ("frames_timed", "seconds", "warm_frames", "warm_seconds")}  # fmt: skip
    return {
        "frames_per_second": _rate(total["frames_timed"], total["seconds"]),
        "frames_per_second_warm": _rate(total["warm_frames"], total["warm_seconds"]),
    }


def _rate(frames: float, seconds: float) -> float | None:
    return round(frames / seconds, 3) if frames and seconds else None
