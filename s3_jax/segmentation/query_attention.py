"""Session that reports where its object queries attend (`s3_jax.propagation.explain`)."""

import numpy as np
from jaxtyping import UInt8

from s3_jax.media.query_pictures import QueryChoices
from s3_jax.propagation.explain import explain
from s3_jax.propagation.session import Session


class WatchedSession(Session):
    """Session that reports which tokens its queries would attend to in the next frame."""

    def choices(self, image: UInt8[np.ndarray, "h w 3"]) -> QueryChoices:
        """Return the attended tokens for every slot; objects must have been annotated."""
        assert self.state is not None
        geometry = self._geometry_of(image)
        found = explain(self._network, self.propagation, geometry, self.state, image)
        return QueryChoices(found.row, found.column, found.readable[:, :, 0])

    def slot(self, object_id: int) -> int:
        """Return the slot in which an object's choices are stored."""
        return self._slots.slot(object_id)
