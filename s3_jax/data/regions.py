"""Objects sampled from a region map: one region, or a union of neighbouring regions."""

import numpy as np
from jaxtyping import Float, Integer, UInt8

from s3_jax.data.config import Range

# Objects rarely cover more of the picture's edge than this, whereas sky and ground do.
LARGEST_EDGE_SHARE = 0.25
TRIES = 20


def sample_objects(
    rng: np.random.Generator, regions: Integer[np.ndarray, "h w"], count: int, area: Range
) -> UInt8[np.ndarray, "h w"]:
    """Sample a mask of up to `count` disjoint objects, with ids starting at 1.

    Args:
      regions: the region number of every pixel.
      count: number of objects; the mask has fewer if no more are found.
      area: smallest and largest fraction of the picture that an object may cover.
    """
    areas = np.bincount(regions.ravel()) / regions.size
    borders = shared_borders(regions)
    edge = _edge_shares(regions)
    label_of = np.zeros(len(areas), np.uint8)
    for object_id in range(1, count + 1):
        members = _sample_union(rng, areas, borders, edge, label_of > 0, area)
        label_of[members] = object_id
        if not members:
            break
    return label_of[regions]


def shared_borders(regions: Integer[np.ndarray, "h w"]) -> Float[np.ndarray, "n n"]:
    """Count the pairs of neighbouring pixels across the border between each pair of regions."""
    count = int(regions.max()) + 1
    borders = np.zeros((count, count))
    for one, other in ((regions[:, 1:], regions[:, :-1]), (regions[1:], regions[:-1])):
        differ = one != other
        np.add.at(borders, (one[differ], other[differ]), 1)
    return borders + borders.T


def _edge_shares(regions: Integer[np.ndarray, "h w"]) -> Float[np.ndarray, " n"]:
    """Return the fraction of the picture's edge that each region covers."""
    edge = np.concatenate([regions[0], regions[-1], regions[1:-1, 0], regions[1:-1, -1]])
    return np.bincount(edge, minlength=int(regions.max()) + 1) / len(edge)


def _sample_union(
    rng: np.random.Generator,
    areas: Float[np.ndarray, " n"],
    borders: Float[np.ndarray, "n n"],
    edge: Float[np.ndarray, " n"],
    taken: np.ndarray,
    area: Range,
) -> list[int]:
    """Return the regions of one object of an allowed size, or an empty list if none was found."""
    allowed = ~taken & (areas > 0) & (areas <= area[1]) & (edge <= LARGEST_EDGE_SHARE)
    seeds = np.flatnonzero(allowed)
    for _ in range(TRIES if len(seeds) else 0):
        members = [int(rng.choice(seeds))]
        target = np.exp(rng.uniform(*np.log(area)))
        while areas[members].sum() < target:
            fits = allowed & (areas[members].sum() + areas <= area[1])
            fits &= edge[members].sum() + edge <= LARGEST_EDGE_SHARE
            fits[members] = False
            weights = borders[members].sum(axis=0) * fits
            if not weights.any():
                break
            members.append(int(rng.choice(len(areas), p=weights / weights.sum())))
        if areas[members].sum() >= area[0]:
            return members
    return []
