"""Shapes of a network's variables are cached on disk, and used only for the same network."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from s3_jax.config import ModelConfig
from s3_jax.models import shape_cache
from s3_jax.models.shape_cache import network_shapes
from s3_jax.models.variables import variable_shapes
from tests.support.tiny_models import TINY_RESNET


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[ModelConfig]]:
    """Configurations that were traced, with a compilation cache in an empty directory."""
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    found: list[ModelConfig] = []

    def tracing(config: ModelConfig) -> object:
        found.append(config)
        return variable_shapes(config)

    monkeypatch.setattr(shape_cache, "variable_shapes", tracing)
    network_shapes.cache_clear()
    yield found
    network_shapes.cache_clear()
    jax.config.update("jax_compilation_cache_dir", before)


def _found_again() -> dict[str, dict[str, tuple[int, ...]]]:
    network_shapes.cache_clear()  # as in the next process
    return network_shapes(TINY_RESNET)


def test_a_network_is_traced_once(traced: list[ModelConfig]) -> None:
    first = network_shapes(TINY_RESNET)
    assert first["params"] and first["batch_stats"]
    assert _found_again() == first
    assert traced == [TINY_RESNET]
    other = dataclasses.replace(TINY_RESNET, num_queries=TINY_RESNET.num_queries + 2)
    assert network_shapes(other) != first
    assert traced == [TINY_RESNET, other]


def test_a_damaged_file_is_made_again(traced: list[ModelConfig], tmp_path: Path) -> None:
    first = network_shapes(TINY_RESNET)
    (file,) = tmp_path.glob("shapes-*.json")
    for content in ("", "[1]", '{"params": {"a": 1}}', file.read_text()[:100]):
        file.write_text(content)
        assert _found_again() == first
    assert len(traced) == 5
    assert _found_again() == first
    assert len(traced) == 5


def test_other_sources_are_traced_again(
    traced: list[ModelConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    network_shapes(TINY_RESNET)
    monkeypatch.setattr(shape_cache, "_sources_digest", lambda: b"other")
    _found_again()
    assert len(traced) == 2


def test_parts_from_outside_are_not_kept(traced: list[ModelConfig], tmp_path: Path) -> None:
    place = "s3_jax.models.object_attention:DiscriminativeCrossAttention"
    network_shapes(dataclasses.replace(TINY_RESNET, query_attention=place))
    assert len(traced) == 1
    assert not list(tmp_path.glob("shapes-*"))
