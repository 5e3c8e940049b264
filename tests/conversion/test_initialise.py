"""Starting a network from public weights: every tensor in its place, or a list of problems."""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.config import ModelConfig, ResNetConfig, ViTConfig
from s3_jax.conversion.initialise import (
    load_image_resnet,
    load_mask_resnet,
    load_vit,
    widen,
)
from s3_jax.conversion.weights import ConversionError, flatten, from_torch
from s3_jax.models.s3 import S3
from s3_jax.models.shape_cache import network_shapes
from s3_jax.models.variables import initial_variables
from s3_jax.models.vit import ViT
from tests.support.tiny_models import TINY_RESNET, TINY_VIT, tiny_tensors

VIT = "pixel_encoder.vit_module."
SINGLE = dataclasses.replace(TINY_RESNET, single_object=True)
Tensors = dict[str, np.ndarray]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def vit_file(layer_scale: bool = True, patch: int = 14, grid: int = 3, depth: int = 2) -> Tensors:
    """A public ViT of width 64, each tensor of other values."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 64),
        "pos_embed": (1, 1 + grid * grid, 64),
        "patch_embed.proj.weight": (64, 3, patch, patch),
        "patch_embed.proj.bias": (64,),
        "norm.weight": (64,),
        "norm.bias": (64,),
    }
    for i in range(depth):
        for name, out, into in (("attn.qkv", 192, 64), ("attn.proj", 64, 64),
                                ("mlp.fc1", 256, 64), ("mlp.fc2", 64, 256)):  # fmt: skip
            shapes[f"blocks.{i}.{name}.weight"] = (out, into)
            shapes[f"blocks.{i}.{name}.bias"] = (out,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (64,)
        if layer_scale:
            shapes |= {f"blocks.{i}.ls{j}.gamma": (64,) for j in (1, 2)}
    return {key: noise(shape, seed) for seed, (key, shape) in enumerate(shapes.items())}


def resnet_file(depth: int = 18, counters: bool = True) -> Tensors:
    """A torchvision ResNet-18 or -50, complete, each tensor of other values."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}

    def batch_norm(name: str, width: int) -> None:
        leaves = ("weight", "bias", "running_mean", "running_var")
        shapes.update({f"{name}.{leaf}": (width,) for leaf in leaves})
        if counters:
            shapes[f"{name}.num_batches_tracked"] = ()

    batch_norm("bn1", 64)
    expansion = 4 if depth == 50 else 1
    into = 64
    for layer, blocks in enumerate((3, 4, 6, 3) if depth == 50 else (2, 2, 2, 2), start=1):
        width = 32 * 2**layer
        out = width * expansion
        sizes = [(width, 1), (width, 3), (out, 1)] if depth == 50 else [(width, 3), (width, 3)]
        for block in range(blocks):
            prefix, channels = f"layer{layer}.{block}", into
            for i, (features, size) in enumerate(sizes, start=1):
                shapes[f"{prefix}.conv{i}.weight"] = (features, channels, size, size)
                batch_norm(f"{prefix}.bn{i}", features)
                channels = features
            if block == 0 and (layer > 1 or depth == 50):
                shapes[f"{prefix}.downsample.0.weight"] = (out, into, 1, 1)
                batch_norm(f"{prefix}.downsample.1", out)
            into = out
    shapes |= {"fc.weight": (1000, into), "fc.bias": (1000,)}
    tensors = {key: noise(shape, seed) for seed, (key, shape) in enumerate(shapes.items())}
    return {k: np.asarray(7) if k.endswith("tracked") else x for k, x in tensors.items()}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + key: value for key, value in tensors.items()}


def assert_only_changed(after: Tensors, before: Tensors, beginning: str) -> None:
    assert list(after) == list(before)
    for key in before:
        if not key.startswith(beginning):
            assert after[key] is before[key], key


# The ViT


@pytest.mark.parametrize("prefix", ["", "model.", "pretrained.", "model.encoder.", "backbone."])
def test_a_vit_is_loaded_whole(prefix):
    before, file = tiny_tensors(), vit_file(patch=16)
    after, report = load_vit(before, prefixed(prefix, file), TINY_VIT)
    assert_only_changed(after, before, VIT)
    for key, value in file.items():
        np.testing.assert_array_equal(after[VIT + key], value)
    assert set(report.loaded) == {VIT + key for key in file}
    assert report.skipped == {}
    assert report.initial == [f"{VIT}mask_token"]


def test_depth_anything_has_a_depth_head_beside_it():
    head = {"depth_head.projects.0.weight": noise((4, 4)), "depth_head.scratch.x": noise((3,))}
    after, report = load_vit(tiny_tensors(), prefixed("pretrained.", vit_file()) | head, TINY_VIT)
    assert report.skipped == dict.fromkeys(head, "depth head")
    assert any("left out: depth_head.scratch.x (depth head)" in line for line in report.lines())
    from_torch(after, TINY_VIT)


def test_what_public_files_hold_besides_is_left_out_and_listed():
    besides = {
        "register_tokens": noise((1, 4, 64)),
        "head.weight": noise((1000, 64)),
        "fc_norm.bias": noise((64,)),
        "decoder_pos_embed": noise((1, 10, 32)),
        "decoder_blocks.0.norm1.weight": noise((32,)),
    }
    file = vit_file(layer_scale=False, patch=16) | besides | {"mask_token": noise((1, 64))}
    after, report = load_vit(tiny_tensors(), prefixed("model.", file), TINY_VIT)
    assert set(report.skipped) == set(prefixed("model.", besides))
    np.testing.assert_array_equal(after[f"{VIT}mask_token"], file["mask_token"])
    assert report.initial == []


def test_patch_kernels_are_resampled_as_recorded(goldens: Path):
    with np.load(goldens / "patch_resample.npz") as recorded:
        given, expected = recorded["patch_resample.in"], recorded["patch_resample.out"]
    file = vit_file()
    file["patch_embed.proj.weight"] = np.tile(given, (8, 1, 1, 1))
    after, report = load_vit(tiny_tensors(), file, TINY_VIT)
    kernel = after[f"{VIT}patch_embed.proj.weight"]
    np.testing.assert_allclose(kernel, np.tile(expected, (8, 1, 1, 1)), atol=2e-6, rtol=0)
    assert kernel.dtype == np.float32
    assert "resampled from 14 x 14" in report.loaded[f"{VIT}patch_embed.proj.weight"]


def test_without_layer_scale_the_blocks_compute_what_they_did():
    """MAE and DINO: x + attention(...), without a factor."""
    before = tiny_tensors()
    file = vit_file(layer_scale=False, patch=16)
    plain, report = load_vit(before, file, TINY_VIT)
    ones = {f"blocks.{i}.ls{j}.gamma": np.ones(64, np.float32) for i in (0, 1) for j in (1, 2)}
    scaled, _ = load_vit(before, file | ones, TINY_VIT)
    assert all(np.array_equal(plain[key], scaled[key]) for key in scaled)
    assert "(the file has no LayerScale)" in report.loaded[f"{VIT}blocks.1.ls2.gamma"]
    assert any("ls*.gamma (4) <- 1 (the file" in line for line in report.lines())


@pytest.mark.parametrize("grid", [2, 5])
def test_another_position_grid_is_resized_as_the_network_does(grid):
    """The reference is a network with the file's grid, which resizes it for 3 x 3 patches."""
    file = vit_file(grid=grid)
    after, report = load_vit(tiny_tensors(), file, TINY_VIT)
    vit = ViT(ViTConfig(64, 2, 1, grid))
    variables = {"params": {name: jnp.asarray(file[name]) for name in ("pos_embed", "cls_token")}}
    expected = vit.apply(variables, 3, 3, method=ViT.position_table)
    np.testing.assert_allclose(after[f"{VIT}pos_embed"], np.asarray(expected), atol=1e-6)
    assert f"(resized from {grid} x {grid} to 3 x 3)" in report.loaded[f"{VIT}pos_embed"]


def test_half_precision_files_are_loaded_as_float32():
    file = {key: value.astype(jnp.bfloat16) for key, value in vit_file(grid=5).items()}
    after, _ = load_vit(tiny_tensors(), file, TINY_VIT)
    assert {value.dtype for key, value in after.items() if key.startswith(VIT)} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.attn.qkv.bias": None}, r"missing: .*blocks\.1\.attn\.qkv\.bias \(192,\)"),
        ({"blocks.1.attn.q_norm.weight": (64,)}, r"unknown: .*blocks\.1\.attn\.q_norm"),
        ({"norm.bias": (63,)}, r"norm\.bias is \(63,\), the network needs \(64,\)"),
        ({"blocks.0.ls1.gamma": None}, r"missing: .*blocks\.0\.ls1\.gamma"),
        ({"pos_embed": (1, 9, 64)}, r"pos_embed is \(1, 9, 64\), the network needs \(1, 10, 64\)"),
        ({"patch_embed.proj.weight": None}, r"a ViT is not in here.*patch_embed\.proj\.weight"),
        ({"student.patch_embed.proj.weight": (64, 3, 14, 14)}, "2 times"),
        ({"blocks.2.norm1.weight": (64,)}, r"width 64 and 3 blocks.*width 64 and 2 blocks"),
    ],
)
def test_a_vit_that_does_not_fit_is_refused(change, message):
    file = {key: value for key, value in vit_file().items() if key not in change}
    file |= {key: noise(shape) for key, shape in change.items() if shape}
    with pytest.raises(ConversionError, match=message):
        load_vit(tiny_tensors(), file, TINY_VIT)


def test_all_problems_are_listed():
    file = vit_file() | {"blocks.0.extra": noise((2,)), "strange": noise((2,))}
    del file["norm.weight"]
    with pytest.raises(ConversionError, match="3 problems"):
        load_vit(tiny_tensors(), file, TINY_VIT)


def test_a_network_without_a_vit_is_told():
    with pytest.raises(ConversionError, match="is resnet, which has no ViT"):
        load_vit(tiny_tensors(TINY_RESNET), vit_file(), TINY_RESNET)


# The ResNets


@pytest.mark.parametrize("counters", [True, False])
def test_the_mask_encoder_gets_a_resnet_and_orthogonal_mask_channels(counters):
    before, file = tiny_tensors(), resnet_file(counters=counters)
    after, report = load_mask_resnet(before, file, TINY_VIT, seed=3)
    assert_only_changed(after, before, "mask_encoder.")
    kernel = after["mask_encoder.conv1.weight"]
    assert kernel.shape == (64, 5, 7, 7)
    np.testing.assert_array_equal(kernel[:, :3], file["conv1.weight"])
    masks = kernel[:, 3:].reshape(64, -1)
    np.testing.assert_allclose(masks @ masks.T, np.eye(64), atol=1e-5)
    for key, value in file.items():
        if not key.startswith(("conv1", "layer4", "fc")):
            np.testing.assert_array_equal(after[f"mask_encoder.{key}"], value)
    assert {key.split(".")[0] for key in report.skipped} == {"layer4", "fc"}
    assert all(key.endswith("num_batches_tracked") for key in report.initial)
    assert bool(report.initial) != counters
    assert len(report.loaded) + len(report.skipped) == len(file)
    from_torch(after, TINY_VIT)


def test_the_mask_channels_follow_from_the_seed():
    def stem(seed: int) -> np.ndarray:
        tensors, _ = load_mask_resnet(tiny_tensors(), resnet_file(), TINY_VIT, seed)
        return tensors["mask_encoder.conv1.weight"]

    np.testing.assert_array_equal(stem(1), stem(1))
    assert np.abs(stem(1) - stem(2))[:, 3:].min() >= 0
    assert not np.array_equal(stem(1), stem(2))


@pytest.mark.parametrize("depth", [18, 50])
def test_the_image_encoder_gets_a_resnet(depth):
    config = dataclasses.replace(TINY_RESNET, encoder_settings=ResNetConfig(depth))
    before, file = tiny_tensors(config), prefixed("module.", resnet_file(depth))
    after, report = load_image_resnet(before, file, config)
    assert_only_changed(after, before, "pixel_encoder.")
    same = ("conv1.weight", "bn1.running_var", "layer3.0.downsample.1.bias")
    pairs = {"res2.1.conv2.weight": "layer1.1.conv2.weight"} | {key: key for key in same}
    for ours, theirs in pairs.items():
        np.testing.assert_array_equal(after[f"pixel_encoder.{ours}"], file[f"module.{theirs}"])
    filled = {key for key in before if key.startswith("pixel_encoder.")}
    assert set(report.loaded) == filled
    assert report.initial == []


def test_resnets_that_do_not_fit_are_refused():
    with pytest.raises(
        ConversionError, match=r"\(3, 4, 6\) bottleneck blocks; ResNet-18 is needed"
    ):
        load_mask_resnet(tiny_tensors(), resnet_file(50), TINY_VIT)
    with pytest.raises(ConversionError, match=r"\(2, 2, 2\) plain blocks; ResNet-50 is needed"):
        config = dataclasses.replace(TINY_RESNET, encoder_settings=ResNetConfig(50))
        load_image_resnet(tiny_tensors(config), resnet_file(18), config)
    with pytest.raises(ConversionError, match="image encoder is feature_pyramid, not a ResNet"):
        load_image_resnet(tiny_tensors(), resnet_file(18), TINY_VIT)
    file = resnet_file()
    del file["layer2.0.bn1.bias"]
    with pytest.raises(ConversionError, match=r"missing: mask_encoder\.layer2\.0\.bn1\.bias"):
        load_mask_resnet(tiny_tensors(), file, TINY_VIT)


# From a single object to several


def test_widening_adds_a_last_input_channel():
    before = tiny_tensors(SINGLE)
    after, config, report = widen(before, SINGLE, "orthogonal", seed=4)
    assert config == TINY_RESNET
    widened = {"mask_encoder.conv1.weight", "pixel_fuser.sensory_compress.weight"}
    assert set(report.loaded) == widened
    for key in before:
        if key not in widened:
            assert after[key] is before[key]
            continue
        np.testing.assert_array_equal(after[key][:, :-1], before[key])
        added = after[key][:, -1].reshape(len(after[key]), -1)
        gram = added @ added.T if added.shape[0] <= added.shape[1] else added.T @ added
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
    from_torch(after, config)
    again, _, _ = widen(before, SINGLE, "orthogonal", seed=4)
    assert all(np.array_equal(again[key], after[key]) for key in after)


def test_widening_by_zeros_leaves_what_the_network_computes():
    before = tiny_tensors(SINGLE)
    after, config, _ = widen(before, SINGLE, "zeros")
    image = jnp.asarray(np.random.default_rng(0).random((1, 32, 32, 3)), jnp.float32)
    masks = jnp.asarray(np.random.default_rng(1).random((1, 2, 32, 32)), jnp.float32)

    def prob(tensors: Tensors, config: ModelConfig) -> np.ndarray:
        variables = from_torch(tensors, config)
        del variables["unused"]
        return np.asarray(jax.jit(S3(config).apply)(variables, image, masks))

    np.testing.assert_allclose(prob(after, config), prob(before, SINGLE), atol=1e-5)


def test_a_network_for_several_objects_is_not_widened():
    with pytest.raises(ConversionError, match="for several objects already"):
        widen(tiny_tensors(), TINY_VIT)


# Initial values


@pytest.mark.slow
def test_initial_values_follow_from_the_seed_and_fit():
    first, again, other = (flatten(initial_variables(TINY_VIT, seed)) for seed in (0, 0, 1))
    expected = flatten(network_shapes(TINY_VIT))
    assert {path: value.shape for path, value in first.items()} == expected
    assert all(np.array_equal(first[path], again[path]) for path in first)
    kernel = "params/mask_encoder/resnet/stem_conv/kernel"
    assert not np.array_equal(first[kernel], other[kernel])
    kernels = [x for path, x in first.items() if path.endswith("/kernel")]
    assert all(np.isfinite(x).all() for x in kernels)
    for a, b in itertools.pairwise(kernels):
        assert a.shape != b.shape or not np.array_equal(a, b)
