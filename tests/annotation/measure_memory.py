"""Memory of `s3 annotate` while objects are followed through a long video.

    python -m tests.annotation.measure_memory --frames=3000 --height=480 --width=854 \
        --max_internal_size=128

Prints the resident memory of the server's process as a table, and its final value. This is not a
test: 3,000 frames take most of an hour on two cores.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
from websockets.sync.client import connect

from tests.annotation.browser import Command


def write_video(path: Path, frames: int, height: int, width: int) -> None:
    """A textured picture that pans, with a disc that wanders over it."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(
        rng.integers(0, 255, (12, 24, 3), dtype=np.uint8), (2 * width, height),
        interpolation=cv2.INTER_CUBIC,
    )  # fmt: skip
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            left = round(width / 2 * (1 + np.sin(index / 200)))
            picture = texture[:, left : left + width].copy()
            cv2.circle(picture, centre(index, height, width), height // 8, (250, 60, 30), -1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def centre(index: int, height: int, width: int) -> tuple[int, int]:
    """Return the centre of the disc."""
    x, y = 0.5 + 0.3 * np.sin(index / 40), 0.5 + 0.25 * np.cos(index / 31)
    return round(width * x), round(height * y)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--max_internal_size", type=int, default=128)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "long.mp4"
        write_video(video, given.frames, given.height, given.width)
        command = Command(
            video, f"--output={folder}/project", "--port=0",
            f"--max_internal_size={given.max_internal_size}",
        )  # fmt: skip
        try:
            _follow(command, given)
        finally:
            command.kill()


def _follow(command: Command, given: argparse.Namespace) -> None:
    process = psutil.Process(command.process.pid)
    address = command.address.replace("http:", "ws:") + "talk"
    origin = command.address.split("/", 3)[:3]
    with connect(address, origin="/".join(origin), max_size=None) as socket:  # type: ignore[call-overload]

        def say(**message: object) -> None:
            socket.send(json.dumps(message))

        say(type="hello", page="measure-1")
        say(type="object", seq=1, object=1, name="Disc", colour="#ff6b5e")
        x, y = centre(0, given.height, given.width)
        size = given.height // 4
        stroke = {"tool": "brush", "points": [[x, y]], "size": size, "label": 1}
        say(type="edit", seq=2, frame=0, object=1, **stroke)
        say(type="propagate", first=0, last=given.frames - 1, direction="forward")
        begin, peak, following = time.monotonic(), 0.0, False
        print("frames  MB  frames/s")
        for text in socket:
            if isinstance(text, bytes):
                continue
            told = json.loads(text)
            if told["type"] in ("problem", "refused"):
                raise SystemExit(told["text"])
            if told["type"] != "progress":
                continue
            if following and not told["doing"]:
                break
            following = following or bool(told["doing"])
            resident = process.memory_info().rss / 1e6
            peak = max(peak, resident)
            if told["done"] and told["done"] % max(1, given.frames // 15) == 0:
                print(f"{told['done']:6d}  {resident:.0f}  {told['rate']:.1f}", flush=True)
    print(f"peak {peak:.0f} MB in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
