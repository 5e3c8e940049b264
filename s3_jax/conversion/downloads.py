"""Published weights by name, downloaded once into a cache.

A file in the cache is complete and has the published checksum: it is downloaded under a temporary
name (`.part`, from which an interrupted download resumes), checked, and then renamed. Without a
network connection, the file can be put there by other means and is checked in the same way.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from absl import logging
from tqdm import tqdm

from s3_jax.errors import InputError, reason

CACHE_VARIABLE = "S3_JAX_WEIGHTS"
CACHE = "~/.cache/s3_jax/weights"
ATTEMPTS = 4  # number of times that an interrupted download is resumed
TIMEOUT = 30  # seconds without any data
PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file as published by its authors.

    algorithm, digest: the checksum. The digest may be a prefix, as in torchvision's file names.
    size: approximate size in bytes, for messages.
    role: "network" for a whole network, otherwise the flag of `s3 convert` that takes the file.
    """

    url: str
    algorithm: str
    digest: str
    size: int
    licence: str
    role: str
    about: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


PUBLISHED = {
    "cutie_base_mega": PublishedFile(
        "https://github.com/hkchengrex/Cutie/releases/download/v1.0/cutie-base-mega.pth",
        "md5",
        "a6071de6136982e396851903ab4c083a",
        140_000_000,
        "MIT",
        "network",
        "Cutie base, trained on all its data; published HOTA on BURST: 61.2 val, 66.0 test",
    ),
    "resnet18_imagenet": PublishedFile(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "sha256",
        "f37072fd",
        46_830_571,
        "BSD-3-Clause; trained on ImageNet",
        "resnet",
        "torchvision's ResNet-18, to train from",
    ),
    "resnet50_imagenet": PublishedFile(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "sha256",
        "0676ba61",
        102_530_333,
        "BSD-3-Clause; trained on ImageNet",
        "resnet",
        "torchvision's ResNet-50, to train from",
    ),
    # Meta publishes no checksums for DINOv2; public repositories that use the files list these.
    "dinov2_vitb14": PublishedFile(
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        "sha256",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        346_378_731,
        "Apache-2.0",
        "vit",
        "DINOv2's ViT-B/14, to train from",
    ),
    "dinov2_vitl14": PublishedFile(
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        "sha256",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        1_217_586_395,
        "Apache-2.0",
        "vit",
        "DINOv2's ViT-L/14, to train from",
    ),
    # Its Space publishes no checksum beside the file; mirrors of it and packagers list this one.
    "depth_anything_vitb14": PublishedFile(
        "https://huggingface.co/spaces/LiheYoung/Depth-Anything/resolve/main/checkpoints/"
        "depth_anything_vitb14.pth",
        "sha256",
        "64ae214ae4e27424b644c49464c0aa243016f6f753d95097c8eb9ad0b9cb2d9b",
        389_962_664,
        "Apache-2.0",
        "vit",
        "Depth-Anything's ViT-B/14, to train the released S3 from",
    ),
    "mae_vitb16": PublishedFile(
        "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
        "md5",
        "8cad7c",  # all that MAE's README prints
        343_000_000,
        "CC-BY-NC-4.0; trained on ImageNet",
        "vit",
        "MAE's ViT-B/16, to train from",
    ),
}


def cache_directory() -> Path:
    """Return the directory of downloaded weights: $S3_JAX_WEIGHTS, or ~/.cache/s3_jax/weights."""
    return Path(os.environ.get(CACHE_VARIABLE) or CACHE).expanduser()


def download(name: str) -> Path:
    """Return a published file by its name, downloading it if the cache lacks it.

    Raises:
      InputError: it cannot be downloaded; the message names the file to fetch and where to put it.
    """
    published = PUBLISHED[name]
    target = cache_directory() / published.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not target.exists():
                part = target.with_name(f"{target.name}.part")
                _complete(published, part)
                _check(published, part)
                part.replace(target)
            else:
                _check(published, target)
    except urllib.error.URLError as error:
        raise InputError(_by_hand(name, target, str(error.reason))) from error
    except OSError as error:
        raise InputError(_by_hand(name, target, reason(error))) from error
    return target


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Admit one process at a time; the others wait and then find the file."""
    with target.with_name(f".{target.name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("%s: another process is downloading it; waiting", target)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _complete(published: PublishedFile, part: Path) -> None:
    """Download the missing part of a file, reconnecting if the connection breaks."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _go_on(published, part)
            break
        except urllib.error.HTTPError as error:
            raise OSError(f"the server answers {error.code} {error.reason}") from error
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                raise OSError(f"the connection broke {ATTEMPTS} times ({reason(error)})") from error


def _go_on(published: PublishedFile, part: Path) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(published.url, headers={"Range": f"bytes={done}-"})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing is missing; the checksum decides
            return
        raise
    with answer:
        continues = answer.status == 206
        length = answer.headers.get("Content-Length")
        total = (done if continues else 0) + int(length) if length else None
        _require_space(part, (total or published.size) - (done if continues else 0))
        with part.open("ab" if continues else "wb") as file:
            _copy(answer, file, published.name, total)
        if total is not None and part.stat().st_size < total:
            raise ConnectionResetError(f"received {part.stat().st_size} of {total} bytes")


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], name: str, total: int | None) -> None:
    interval = 0.2 if sys.stderr.isatty() else 10
    with tqdm(desc=name, total=total, initial=file.tell(), unit="B", unit_scale=True,
              mininterval=interval, dynamic_ncols=True) as bar:  # fmt: skip
        while piece := answer.read(PIECE):
            file.write(piece)
            bar.update(len(piece))


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise OSError(f"{needed >> 20} MB are needed, but {part.parent} has {free >> 20} MB free")


def _check(published: PublishedFile, file: Path) -> None:
    """Verify the checksum, and delete a file that fails, because resuming it cannot help."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, published.algorithm).hexdigest()
    if not found.startswith(published.digest):
        file.unlink()
        raise OSError(
            f"the {published.algorithm} of {file} was {found}, not {published.digest}, so it is "
            "removed"
        )


def _by_hand(name: str, target: Path, why: str) -> str:
    published = PUBLISHED[name]
    return (
        f"{name}: {why}; try again, or fetch {published.url} ({published.size // 10**6} MB, "
        f"{published.algorithm} {published.digest}) by other means and put it at {target}"
    )
