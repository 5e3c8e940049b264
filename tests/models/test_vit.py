"""Position tables of the vision transformer, at every recorded size."""

import jax
import jax.numpy as jnp
import pytest

from s3_jax.config import ViTConfig
from s3_jax.models.vit import PATCH_SIZE, ViT
from tests.support.goldens import Recording


@pytest.mark.parametrize("side", [592, 224])
def test_position_tables_equal_recording(modules: Recording, side: int) -> None:
    case = f"vit_pos_{side}"
    table = jnp.asarray(modules[f"{case}.w.pos_embed"])
    config = ViTConfig(table.shape[-1], depth=0, num_heads=1, position_grid=side // PATCH_SIZE)
    params = {"pos_embed": table, "cls_token": jnp.zeros((1, 1, table.shape[-1]))}
    names = [name for name in modules.names if name.startswith(f"{case}.out_")]
    assert len(names) == 7

    @jax.jit
    def tables(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        vit = ViT(config).bind({"params": params})
        sizes = {name: [int(n) for n in name.split("_")[-1].split("x")] for name in names}
        return {
            name: vit.position_table(height // PATCH_SIZE, width // PATCH_SIZE)
            for name, (height, width) in sizes.items()
        }

    modules.assert_equal(tables(params), names)


def test_stored_table_is_used_as_it_is_only_for_its_own_square() -> None:
    config = ViTConfig(embed_dim=4, depth=0, num_heads=1, position_grid=3)
    table = jnp.arange(40.0).reshape(1, 10, 4)
    vit = ViT(config).bind({"params": {"pos_embed": table, "cls_token": jnp.zeros((1, 1, 4))}})
    assert (vit.position_table(3, 3) == table).all()
    assert not jnp.allclose(vit.position_table(3, 4)[:, 1:4], table[:, 1:4])
