r"""Paint masks in the browser, propagate them through the video, correct, and export.

  s3 annotate cats.mp4

The command opens a project and prints the address of its page, for a browser on this machine. Every
change is saved at once, so the same command reopens the project, even after a crash. --output is
the project's directory; by default it is named after the video: cats_annotation.

Only this machine can open the page, and only at the printed address, which contains a new random
token each time. docs/annotate.md shows the page.

More examples:
  s3 annotate frames/ --output=projects/cats --checkpoint=checkpoints/s3_vitb_depthanything
  # Start with existing masks.
  s3 annotate cats.mp4 --masks=results/cats/masks
  # Faster: smaller frames inside the network.
  s3 annotate cats.mp4 --max_internal_size=360
"""

import contextlib
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from s3_jax.cli import propagation_flags
from s3_jax.cli.logs import quiet_logging
from s3_jax.cli.propagation_flags import DTYPE, define_propagation_flags, propagation_config
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError, reason
from s3_jax.media.seeking import Frames
from s3_jax.media.video_files import VideoSource, open_video

if TYPE_CHECKING:  # importing JAX takes seconds, too long for a flag error
    from s3_jax.annotation.annotator import Annotator
    from s3_jax.annotation.document import Document
    from s3_jax.annotation.project import Project
    from s3_jax.annotation.studio import Studio

CHECKPOINT = propagation_flags.CHECKPOINT
OUTPUT = flags.DEFINE_string("output", None, "Directory of the project. Default: VIDEO_annotation.")
MASKS = flags.DEFINE_string(
    "masks",
    None,
    "Masks to start a new project from: a mask image, a directory of masks, the results of s3 "
    "segment, a YouTube-VOS directory, or COCO JSON.",
)
PORT = flags.DEFINE_integer(
    "port", 8333, "Port of the page; 0 for any free port.", lower_bound=0, upper_bound=65535
)
HOST = flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "Network address to serve the page on. By default only this machine can reach it. With another "
    "one, everyone on the network who knows the page's address can see the video and change the "
    "masks, and the connection is not encrypted.",
)
BROWSER = flags.DEFINE_bool("browser", True, "Open the page in the default browser.")
_CACHE_MEGABYTES = 256.0  # decoded frames, for the page and for the session each
_DEFAULT_RATE = 24.0

_PROPAGATION_FLAGS = define_propagation_flags()
flags.adopt_module_key_flags(propagation_flags)


def main(videos: list[str]) -> int:
    """Serve a project until it is interrupted."""
    quiet_logging()
    video = _only(videos)
    source = open_video(video, keep_going=True)
    from s3_jax.annotation.project import Project, video_identity
    from s3_jax.checkpoints.model import find_model

    checkpoint = find_model(CHECKPOINT.value or "s3_lite")
    config = propagation_config(_PROPAGATION_FLAGS, checkpoint)
    shown = Frames(source, _CACHE_MEGABYTES)
    names = source.frame_names or [f"{index:05d}" for index in range(shown.count)]
    output = Path(OUTPUT.value or f"{video.resolve().stem}_annotation")
    with Project(output, video_identity(source, shown.count), names) as project:
        studio = _studio(project, source, shown, names, checkpoint, config)
        with _listening() as listener:
            _serve(studio, listener)
    return 0


def _studio(
    project: "Project", source: VideoSource, shown: Frames, names: Sequence[str], checkpoint: Path,
    config: PropagationConfig,
) -> "Studio":  # fmt: skip
    from s3_jax.annotation.document import NAME, Document
    from s3_jax.annotation.prompts import Prompts
    from s3_jax.annotation.studio import Studio

    document = Document(project.path / NAME, source.size)
    if MASKS.value:
        _import(document, Path(MASKS.value), names)
    return Studio(
        source.path.name,
        float(source.frame_rate or _DEFAULT_RATE),
        shown,
        names,
        project,
        document,
        Prompts(lambda: _prompter(checkpoint, source.size), shown.image),
        lambda: _annotator(project, source, shown.count, checkpoint, config),
    )


def _import(document: "Document", masks: Path, names: Sequence[str]) -> None:
    """Start a project with masks that other programs made."""
    from s3_jax.annotation.beginning import cells_of_import
    from s3_jax.annotation.importing import import_masks

    if not document.is_new:
        raise InputError(
            f"{document.journal.path.parent} is an existing project: omit --masks to continue it, "
            "or give another --output"
        )
    document.start(cells_of_import(import_masks(masks, names, document.size)))


def _annotator(
    project: "Project", source: VideoSource, count: int, checkpoint: Path,
    config: PropagationConfig,
) -> "Annotator":  # fmt: skip
    import jax.numpy as jnp

    from s3_jax.annotation.annotator import Annotator
    from s3_jax.checkpoints.model import load_model
    from s3_jax.cli.compilation import prepare_compilation
    from s3_jax.propagation.session import Session

    prepare_compilation()
    model_config, variables = load_model(checkpoint)
    session = Session(model_config, variables, config, dtype=jnp.dtype(DTYPE.value))
    frames = Frames(source, _CACHE_MEGABYTES)
    return Annotator(session, frames.image, count, given=project.given, found=project.found)


def _prompter(checkpoint: Path, size: tuple[int, int]) -> Any:
    """Return a prompt head that is ready for use: the checkpoint's own, or that of s3_lite."""
    from s3_jax.cli.compilation import prepare_compilation
    from s3_jax.prompting import Prompter

    prepare_compilation()
    try:
        prompter = Prompter(checkpoint)
    except InputError:  # clicks may use another network than propagation
        prompter = Prompter("s3_lite")
    prompter.prepare(size)
    return prompter


def _serve(studio: "Studio", listener: socket.socket) -> None:
    import uvicorn

    from s3_jax.annotation.access import LOCAL, Access
    from s3_jax.annotation.messages import LARGEST
    from s3_jax.annotation.server import make_app

    access = Access(secrets.token_urlsafe(24), HOST.value, listener.getsockname()[1])
    config = uvicorn.Config(
        make_app(studio, access),
        log_level="error",
        ws="websockets-sansio",
        ws_max_size=LARGEST,
        timeout_graceful_shutdown=2,
        access_log=False,
        server_header=False,
    )
    if HOST.value not in LOCAL:
        print(
            f"warning: everyone on the network who learns the address below can see "
            f"{studio.name} and change its masks; the connection is not encrypted",
            file=sys.stderr,
        )
    print(
        f"project: {studio.project.path}\npage:    {access.address()}\nCtrl-C stops it.", flush=True
    )
    if BROWSER.value:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(access.address())
    uvicorn.Server(config).run(sockets=[listener])


def _listening() -> socket.socket:
    """Return a socket on the requested port, or on any free port if the default one is taken."""
    for port in [PORT.value, *([] if PORT.present else [0])]:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST.value, port))
            listener.listen()  # a browser that connects early waits until the server runs
            return listener
        except OSError as error:
            listener.close()
            problem = reason(error)
    raise InputError(f"cannot serve on {HOST.value}, port {PORT.value}: {problem}; see --port")


def _only(videos: list[str]) -> Path:
    if len(videos) != 1:
        raise InputError("give one video: s3 annotate cats.mp4")
    return Path(videos[0])
