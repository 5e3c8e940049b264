"""Networks on the Hugging Face Hub: `hf://org/name`, or `hf://org/name@revision`."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from s3_jax.checkpoints.layout import CONFIG_FILE, Header, read_header
from s3_jax.errors import InputError, reason

SCHEME = "hf"
CARD = """\
---
library_name: s3_jax
pipeline_tag: video-segmentation
tags: [video-object-segmentation, jax]
{licence}---
# {name}

A network for video object segmentation with [S3 in JAX](https://arxiv.org/abs/2407.07760):
{encoder} image encoder, {queries} object queries.

```
s3 segment --checkpoint=hf://{repo} --video=cats.mp4 --masks=first.png --output=results/cats
```
"""
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?/?")


class Address(NamedTuple):
    """A repository of the Hub and, if the address names one, its revision."""

    repo: str
    revision: str | None


def is_hub(path: str | os.PathLike[str]) -> bool:
    """Return True if a path is an address on the Hub."""
    return os.fspath(path).startswith(f"{SCHEME}:/")


def parse(path: str | os.PathLike[str]) -> Address:
    """Return the repository and revision that an address names.

    Raises:
      InputError: the address is malformed.
    """
    found = _ADDRESS.fullmatch(os.fspath(path))
    if found is None:
        raise InputError(
            f"{os.fspath(path)}: write it like hf://org/name or hf://org/name@revision"
        )
    return Address(found["repo"], found["revision"])


def hub_model(path: str | os.PathLike[str]) -> Path:
    """Return the local directory of a network, downloading files that the Hub's cache lacks.

    Raises:
      InputError: the network cannot be downloaded, or is not an s3_jax network.
    """
    address = parse(path)
    elsewhere = (
        "log in with `hf auth login` if it is private; without a network connection, run `hf "
        f"download {address.repo} --local-dir DIRECTORY` elsewhere and pass --checkpoint=DIRECTORY"
    )
    with _told(path, "cannot be downloaded", elsewhere):
        from huggingface_hub import snapshot_download

        directory = Path(snapshot_download(
            address.repo, revision=address.revision, endpoint=os.environ.get("HF_ENDPOINT"),
            cache_dir=os.environ.get("HF_HUB_CACHE"), ignore_patterns=["*.md", ".gitattributes"],
        ))  # fmt: skip
    if not (directory / CONFIG_FILE).is_file():
        raise InputError(
            f"{os.fspath(path)} has no {CONFIG_FILE}: s3 push did not upload it; download its "
            "weights file and convert it with s3 convert --input=FILE"
        )
    return directory


def push_model(checkpoint: Path, path: str | os.PathLike[str], private: bool = False) -> str:
    """Upload a model checkpoint with a model card, and return the address of its page.

    The repository is created if it does not exist. Earlier uploads stay in its history.

    Args:
      checkpoint: directory of the model checkpoint.
      path: address of the repository, hf://org/name.
      private: make the repository private if it is created here.

    Raises:
      InputError: the checkpoint cannot be uploaded.
    """
    address = parse(path)
    header = read_header(checkpoint)
    login = "log in with `hf auth login`, using a token with write access"
    with _told(path, "cannot be uploaded", login), tempfile.TemporaryDirectory() as stage:
        from huggingface_hub import HfApi

        folder = Path(stage, "model")
        folder.mkdir()
        for name in (*header.files, CONFIG_FILE):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint / name, folder / name)
        (folder / "README.md").write_text(_card(address.repo, header))
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(address.repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo, folder_path=folder, revision=address.revision,
            commit_message="A network of s3_jax", delete_patterns=["*"],
        )  # fmt: skip
        return f"{api.endpoint}/{address.repo}"


def _card(repo: str, header: Header) -> str:
    licence = header.metadata.get("licence")
    return CARD.format(
        repo=repo,
        name=repo.partition("/")[2],
        encoder=header.config.encoder,
        queries=header.config.num_queries,
        licence=f"license: other\nlicense_name: {licence}\n" if licence else "",
    )


@contextlib.contextmanager
def _told(path: str | os.PathLike[str], what: str, hint: str) -> Iterator[None]:
    """Turn errors of the Hub, which have many types, into a one-line InputError."""
    try:
        yield
    except (InputError, ModuleNotFoundError):
        raise
    except Exception as error:
        why = reason(error)[:200]
        raise InputError(f"{os.fspath(path)} {what} ({why}); {hint}") from error
