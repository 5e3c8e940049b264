"""Every parameter is in the recorded group, and the optimizer treats groups as recorded."""

import json
from pathlib import Path

import pytest
from flax.traverse_util import unflatten_dict

from s3_jax.config import MODELS
from s3_jax.conversion.weights import flatten, pairs
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.training.parameter_groups import (
    group_labels,
    group_of,
    matches,
    merge,
    refuse_unmatched,
    split_frozen,
)

MODEL = "s3_vitb_depthanything"


def paths_of(name: str) -> list[tuple[str, ...]]:
    """Return the paths of a model's parameters."""
    every = (pair for pair in pairs(MODELS[name]) if pair.collection == "params")
    return [tuple(pair.path.split("/")) for pair in every]


@pytest.mark.parametrize("name", ["s3_resnet18", "s3_vitb_depthanything"])
def test_groups_equal_recording(name: str, goldens: Path) -> None:
    recorded = json.loads((goldens / f"param_groups_{name}.json").read_text())
    model = S3(MODELS[name])
    ours = {
        pair.key: group_of(tuple(pair.path.split("/")), model)
        for pair in pairs(MODELS[name])
        if pair.collection == "params"
    }
    # A checkpoint's ViT has tensors that nothing computes with; they are no parameters here.
    unused = {key for key in recorded if key not in ours}
    assert all(not recorded[key]["trainable"] for key in unused)
    assert set(ours) <= set(recorded)
    expected = {key: recorded[key]["group"] or "frozen" for key in ours}
    assert ours == expected


@pytest.mark.parametrize("name", list(MODELS))
def test_only_the_pretrained_network_is_frozen(name: str) -> None:
    model = S3(MODELS[name])
    pretrained = {("image_encoder", "vit"), ("image_encoder", "backbone")}
    for path in paths_of(name):
        assert (group_of(path, model) == "frozen") == (path[:2] in pretrained)


def test_split_is_undone_by_merge() -> None:
    params = unflatten_dict({path: path for path in paths_of(MODEL)})
    trained, frozen = split_frozen(params, S3(MODELS[MODEL]))
    assert frozen
    assert not set(flatten(trained)) & set(flatten(frozen))
    assert merge(trained, frozen) == params


def test_trainable_blocks_are_quarters_of_the_vit() -> None:
    params = unflatten_dict(dict.fromkeys(paths_of(MODEL), 0))
    model = S3(MODELS[MODEL], trainable_blocks=(1, 3))
    labels = group_labels(params, model)["image_encoder"]["vit"]
    groups = {name: set(flatten({"": part}).values()) for name, part in labels.items()}
    trained = {f"blocks_{i}" for i in (3, 4, 5, 9, 10, 11)}
    assert trained < set(groups)
    for name, found in groups.items():
        assert found == {"backbone" if name in trained else "frozen"}


def test_the_fine_tuned_part_of_the_pretrained_network_can_be_a_group() -> None:
    params = unflatten_dict(dict.fromkeys(paths_of("s3_lite"), 0))
    model = S3(MODELS["s3_lite"], trainable_blocks=(2,))
    together, apart = (flatten(group_labels(params, model, flag)) for flag in (False, True))
    changed = {path for path in together if together[path] != apart[path]}
    backbone = "image_encoder/backbone/"
    assert changed
    assert changed == {path for path in together
                       if path.startswith(backbone) and together[path] != "frozen"}  # fmt: skip
    assert {apart[path] for path in changed} == {"pretrained"}


def test_patterns_freeze_what_they_match_and_nothing_in_silence() -> None:
    params = unflatten_dict({path: path for path in paths_of(MODEL)})
    encoder = [path for path in paths_of(MODEL) if matches(path, ["image_encoder/*"])]
    assert encoder and encoder == [p for p in paths_of(MODEL) if p[0] == "image_encoder"]
    refuse_unmatched(params, ["image_encoder/*", "*/bias"], "frozen")
    with pytest.raises(
        InputError, match=r"frozen: 'encoder/\*' matches no parameter.*mask_decoder"
    ):
        refuse_unmatched(params, ["encoder/*"], "frozen")
