"""Masks of a video during annotation: given, propagated and corrected.

    annotator = Annotator(session, frame, frame_count)      # frame(index) gives (h, w, 3) uint8
    annotator.annotate(40, {1: mask})                       # (h, w) bool, any frame
    for found in annotator.propagate(0, frame_count - 1):   # forwards, backwards, joined
        show(found.index, found.ids)
    annotator.annotate(70, {1: corrected})
    for span in annotator.due():                            # only what the correction affects
        for found in annotator.propagate(*span): ...

An object in a frame between two given masks is propagated from both sides, and the results are
joined (`propagation.joining`). A correction affects the frames up to the neighbouring given masks;
frames beyond them stay as they are. Propagation after a correction starts from the nearest snapshot
of the session.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s3_jax.annotation.chain import Chain
from s3_jax.annotation.found import Found, FoundInMemory, Origin, smallest
from s3_jax.annotation.given import Along, Given, Mask
from s3_jax.annotation.shares import shares_of
from s3_jax.annotation.snapshots import Snapshots
from s3_jax.annotation.spool import Spool
from s3_jax.errors import InputError
from s3_jax.limits import require_within
from s3_jax.propagation.joining import Joined, join, quantize
from s3_jax.propagation.session import FrameResult, Session

Image = UInt8[np.ndarray, "h w 3"]
SNAPSHOT_BYTES = 512 * 2**20


class Annotator:
    """Given and propagated masks of one video, to be used by one thread at a time.

    Args:
      session: session whose settings and network are used; its memory is cleared.
      frame: returns the RGB pixels (h, w, 3) of a frame by index, or raises an InputError for a
        damaged frame, which is then skipped.
      frame_count: number of frames in the video.
      given, found: stores for the given masks and the results, which may already have content. By
        default they keep compressed data in memory; those of `annotation.project` are on disk.
      snapshot_every: number of frames between snapshots of the session.
      snapshot_bytes: memory limit for all snapshots, half of it for each direction. Beyond it,
        snapshots are dropped so that the others stay evenly spaced.
    """

    def __init__(
        self,
        session: Session,
        frame: Callable[[int], Image],
        frame_count: int,
        *,
        given: Given | None = None,
        found: FoundInMemory | None = None,
        snapshot_every: int = 25,
        snapshot_bytes: int = SNAPSHOT_BYTES,
    ) -> None:
        self.frame_count = frame_count
        self.lost: set[int] = set()
        self.frame = frame
        self._given = Given() if given is None else given
        self._found = FoundInMemory() if found is None else found
        self._revision = 0
        self._size: tuple[int, int] | None = None
        self._chains = {
            direction: Chain(session, direction, Snapshots(snapshot_every, snapshot_bytes // 2))
            for direction in (1, -1)
        }

    @property
    def annotated(self) -> Mapping[int, Mapping[int, Mask]]:
        """Given masks by frame (in ascending order) and object id."""
        return {index: self._given.masks(index) for index in self._given.frames}

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that have a given mask, in ascending order."""
        return self._given.object_ids

    @property
    def found_frames(self) -> list[int]:
        """Frames with a result, whether up to date or not, in ascending order."""
        return sorted(self._found)

    def found(self, index: int) -> Found | None:
        """Return the latest result of a frame, which may be outdated, or None if it has none."""
        return self._found.get(index)

    @property
    def annotated_frames(self) -> list[int]:
        """Frames with given masks, in ascending order."""
        return self._given.frames

    def given(self, index: int) -> dict[int, Mask]:
        """Return the given masks of a frame by object id."""
        return self._given.masks(index)

    def prompts(self, index: int) -> Any:
        """Return the prompts behind the given masks of a frame, as passed to `annotate`."""
        return self._given.prompts(index)

    def annotate(self, index: int, masks: Mapping[int, np.ndarray], prompts: Any = None) -> None:
        """Set given masks of a frame, replacing earlier ones of the same objects.

        Args:
          masks: (h, w) bool masks by object id, which may be new. An empty mask means that the
            object is not in the frame.
          prompts: the prompts behind all masks of the frame, a JSON value that is stored with them.

        Raises:
          InputError: there is no such frame, an id is not a positive integer, or a mask has the
            wrong dtype or size. Nothing is changed in this case.
        """
        self._check(index, masks)
        changed = {int(id_): mask for id_, mask in masks.items()}
        self._touch(index, set(changed))
        self._given.put(index, self._given.masks(index) | changed, prompts)
        self._show_given(index)

    def withdraw(self, index: int, ids: Iterable[int] | None = None) -> None:
        """Remove given masks from a frame (all by default), which makes its result due again.

        An object left without given masks is deleted (see `delete`).
        """
        masks = self._given.masks(index)
        taken = set(masks if ids is None else ids) & set(masks)
        if not taken:
            return
        self._touch(index, taken)
        left = {id_: mask for id_, mask in masks.items() if id_ not in taken}
        self._given.put(index, left, self._given.prompts(index))
        for id_ in taken - set(self.object_ids):
            self._erase(id_)

    def delete(self, object_id: int) -> None:
        """Delete an object: its given masks, and its pixels in all results.

        Raises:
          InputError: the object is unknown.
        """
        if object_id not in self.object_ids:
            raise InputError(f"object {object_id} is not known; known ids: {self.object_ids}")
        self._revision += 1
        for index in [i for i in self._given.frames if object_id in self._given.ids(i)]:
            masks = self._given.masks(index)
            del masks[object_id]
            self._given.put(index, masks, self._given.prompts(index))
        self._erase(object_id)

    def due(self) -> list[tuple[int, int]]:
        """Return the spans (first, last frame) whose results are missing or outdated.

        Damaged frames are left out; the list is empty while no object is known.
        """
        if not self._given.frames:
            return []
        spans: list[tuple[int, int]] = []
        complete = set(filter(self._all_given, self._given.frames))
        done = self._found.settled | self.lost | complete
        for index in sorted(set(range(self.frame_count)) - done):
            if spans and spans[-1][1] == index - 1:
                spans[-1] = (spans[-1][0], index)
            else:
                spans.append((index, index))
        return spans

    def propagate(
        self,
        first: int,
        last: int,
        *,
        both_directions: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Found]:
        """Propagate all given masks over a span of frames, yielding results as they are computed.

        Given frames come first, then forward results in ascending order, then backward or joined
        results in descending order. A frame between two given ones is therefore yielded twice; its
        second result is final.

        Args:
          first, last: first and last frame of the span, both included.
          both_directions: also propagate backwards from given frames, not only forwards.
          stop: called before every frame; returns True to end the run. Results yielded so far are
            kept, and a later run resumes from a snapshot. Setting or removing a mask also ends a
            run.

        Raises:
          InputError: no given mask shows an object, or the span extends beyond the video.
        """
        if not 0 <= first <= last < self.frame_count:
            raise InputError(
                f"frames {first} to {last} are not a span of a video of {self.frame_count} frames"
            )
        if not any(map(self._given.shown, self._given.frames)):
            raise InputError("no given mask shows an object: annotate a frame first")
        revision = self._revision
        return self._propagate(
            first, last, both_directions, lambda: stop() or self._revision != revision
        )

    def _propagate(
        self, first: int, last: int, both_directions: bool, stop: Callable[[], bool]
    ) -> Iterator[Found]:
        for index in (i for i in self._given.frames if first <= i <= last):
            if self._all_given(index):
                yield self._show_given(index)
        todo = [i for i in range(first, last + 1) if not self._all_given(i)]
        shares = dict(zip(todo, map(shares_of(self._given), todo), strict=True))
        backward = [i for i in todo if both_directions and any(s < 1 for s in shares[i].values())]
        forward = [i for i in todo if any(s > 0 for s in shares[i].values())]
        waiting = set(forward) & set(backward)
        with Spool() as spool:
            for index, result in self._run(1, forward, stop):
                if index in waiting:
                    spool.put(index, quantize(result.prob, result.object_ids))
                yield self._keep(index, _whole(result), "forward", index not in waiting)
            for index, result in self._run(-1, backward, stop):
                other = spool.get(index)
                if other is not None:
                    own = quantize(result.prob, result.object_ids)
                    yield self._keep(index, _whole(join(other, own, shares[index])), "both", True)
                elif index not in waiting:  # otherwise the forward pass stopped before it
                    yield self._keep(index, _whole(result), "backward", True)

    def _run(
        self, direction: int, wanted: list[int], stop: Callable[[], bool]
    ) -> Iterator[tuple[int, FrameResult]]:
        """Yield the index and the result of every wanted frame in one direction."""
        if not wanted:
            return
        given = Along(self._given, direction)
        span = min(i * direction for i in wanted), max(i * direction for i in wanted)
        chosen = set(wanted)
        chain = self._chains[direction]
        for position, result in chain.run(given, span, lambda p: self._image(p * direction), stop):
            if position * direction in chosen:
                yield position * direction, result

    def _image(self, index: int) -> Image | None:
        try:
            image = self.frame(index)
        except InputError:
            self.lost.add(index)
            return None
        self.lost.discard(index)
        self._size = self._size or image.shape[:2]
        return image

    def _keep(
        self, index: int, result: tuple[np.ndarray, dict[int, float]], origin: Origin, final: bool
    ) -> Found:
        """Store a result after painting the frame's given masks over it."""
        ids, confidence = result[0], dict(result[1])
        for id_, mask in self._given.masks(index).items():
            ids = np.where(mask, id_, np.where(ids == id_, 0, ids))
            confidence[id_] = 1.0
        found = Found(index, smallest(ids), confidence, origin)
        self._found[index] = found
        if final:
            self._found.settle(index)
        return found

    def _show_given(self, index: int) -> Found:
        """Paint given masks over the current result, which is final if all objects are given."""
        before = self._found.get(index)
        shape = next(iter(self._given.masks(index).values())).shape
        below = (before.ids, before.confidence) if before else (np.zeros(shape, np.uint8), {})
        complete = self._all_given(index)
        origin: Origin = "given" if complete or before is None else before.origin
        return self._keep(index, below, origin, complete)

    def _all_given(self, index: int) -> bool:
        return self._given.ids(index) >= set(self.object_ids)

    def _touch(self, index: int, ids: set[int]) -> None:
        """Mark results as due after the masks of some objects change in a frame.

        On both sides, these are all frames up to the next given masks that show the objects.
        """
        self._revision += 1
        for direction, chain in self._chains.items():
            chain.forget(index * direction, ids, Along(self._given, direction))
        for id_ in ids:
            frames = [i for i in self._given.frames if id_ in self._given.shown(i)]
            first = max((i for i in frames if i < index), default=-1)
            last = min((i for i in frames if i > index), default=self.frame_count)
            self._found.touch(range(first + 1, last))

    def _erase(self, object_id: int) -> None:
        for index in list(self._found):
            found = self._found[index]
            if object_id in found.confidence:
                self._found[index] = found.without(object_id)

    def _check(self, index: int, masks: Mapping[int, np.ndarray]) -> None:
        """Raise an InputError for masks that do not match the video."""
        if not 0 <= index < self.frame_count:
            raise InputError(f"there is no frame {index} in a video of {self.frame_count} frames")
        if not masks:
            raise InputError(f"no mask is given for frame {index}")
        if self._size is None:
            self._image(index)
        for id_, mask in masks.items():
            if isinstance(id_, bool) or not isinstance(id_, int | np.integer) or id_ <= 0:
                raise InputError(f"object id {id_!r} is not allowed; ids are positive integers")
            if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.ndim != 2:
                raise InputError(f"the mask of object {id_} is not a (height, width) bool array")
            if self._size is not None and mask.shape != self._size:
                raise InputError(
                    f"the mask of object {id_} for frame {index} has the size {mask.shape}, but "
                    f"the frame has {self._size}: give a mask of the frame's size"
                )
        count = float(len({*self.object_ids, *masks}))
        require_within("objects", count, f"the masks for frame {index} would make {count:g}")


def _whole(result: FrameResult | Joined) -> tuple[np.ndarray, dict[int, float]]:
    return result.index_mask(), result.confidence
