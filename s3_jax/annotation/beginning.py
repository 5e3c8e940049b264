"""Initial content of a document whose masks were imported or set by a program."""

from s3_jax.annotation.document import Cells
from s3_jax.annotation.importing import Imported
from s3_jax.annotation.looks import default_look
from s3_jax.annotation.project import Project
from s3_jax.annotation.worker import Given
from s3_jax.media.rle import encode_rle


def given_of(project: Project) -> Given:
    """Return the masks that the follower has received so far."""
    given = project.given
    return {
        frame: {id_: encode_rle(mask) for id_, mask in given.masks(frame).items()}
        for frame in given.frames
    }


def cells_of_project(project: Project, given: Given) -> Cells:
    """Return the objects and masks of a project that was created without the page."""
    ids = {*project.objects, *(id_ for runs in given.values() for id_ in runs)}
    cells: Cells = {}
    for id_ in sorted(ids):
        look = project.look(id_)
        cells["object", id_] = {"name": look.name, "colour": _hexadecimal(look.colour)}
    return cells | _mask_cells(given)


def cells_of_import(imported: Imported) -> Cells:
    """Return the objects and masks imported from other programs."""
    given: Given = {
        frame: {id_: encode_rle(mask) for id_, mask in masks.items()}
        for frame, masks in imported.frames()
    }
    cells: Cells = {}
    for id_ in sorted({id_ for runs in given.values() for id_ in runs}):
        look = default_look(id_)
        name = imported.names.get(id_, f"Object {id_}")
        cells["object", id_] = {"name": name, "colour": _hexadecimal(look.colour)}
    return cells | _mask_cells(given)


def _mask_cells(given: Given) -> Cells:
    return {("mask", frame, i): text for frame, runs in given.items() for i, text in runs.items()}


def _hexadecimal(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
