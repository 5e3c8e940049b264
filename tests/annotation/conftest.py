"""A tiny network and video, from the tests of propagation."""

from tests.propagation.conftest import tiny_network, video

__all__ = ["tiny_network", "video"]
