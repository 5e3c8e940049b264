"""Plain reference implementation of the memory, with Python lists that grow and shrink."""

import dataclasses

import numpy as np

FLOAT = np.float32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Fields of MemoryLayout, and the arguments of consolidation."""

    max_frames: int  # working-memory frames; one of them is permanent
    top_k: int
    long_term: bool = False
    min_frames: int = 1
    prototypes: int = 0
    max_tokens: int = 0
    buffer_tokens: int = 0


@dataclasses.dataclass
class Tokens:
    """Tokens of one bucket; values by object."""

    key: np.ndarray  # n ck
    shrinkage: np.ndarray  # n
    selection: np.ndarray  # n ck
    value: dict[int, np.ndarray]  # n cv
    usage: np.ndarray
    life: np.ndarray

    @staticmethod
    def new(key, shrinkage, selection, value) -> "Tokens":
        n = len(key)
        return Tokens(key, shrinkage, selection, value, np.zeros(n, FLOAT), np.full(n, 1e-7, FLOAT))

    def take(self, index) -> "Tokens":
        value = {name: array[index] for name, array in self.value.items()}
        return Tokens(self.key[index], self.shrinkage[index], self.selection[index], value,
                      self.usage[index], self.life[index])  # fmt: skip

    def rate(self) -> np.ndarray:
        return self.usage / self.life


def join(parts: list[Tokens]) -> Tokens:
    """All tokens, in order, with the values of objects that all parts have."""
    names = set.intersection(*(set(part.value) for part in parts))
    return Tokens(
        key=np.concatenate([part.key for part in parts]),
        shrinkage=np.concatenate([part.shrinkage for part in parts]),
        selection=np.concatenate([part.selection for part in parts]),
        value={name: np.concatenate([part.value[name] for part in parts]) for name in names},
        usage=np.concatenate([part.usage for part in parts]),
        life=np.concatenate([part.life for part in parts]),
    )


def similarity(key, shrinkage, query_key, query_selection) -> np.ndarray:
    """m n, straight from its definition."""
    difference = (key[None] - query_key[:, None]) ** 2
    distance = (query_selection[:, None] * difference).sum(-1)
    return (-shrinkage[None] * distance / np.sqrt(key.shape[-1])).astype(FLOAT)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def top_k_softmax(scores: np.ndarray, k: int) -> np.ndarray:
    """Softmax over the k largest of each row, ties by lowest index; zero elsewhere."""
    weights = np.zeros_like(scores)
    for row, out in zip(scores, weights, strict=True):
        best = np.argsort(-row, kind="stable")[:k]
        out[best] = softmax(row[best])
    return weights


class Bucket:
    """Objects that appeared together: permanent and temporary frames, and long-term tokens."""

    def __init__(self, objects: list[int]) -> None:
        self.objects = set(objects)
        self.permanent: list[Tokens] = []
        self.temporary: list[Tokens] = []
        self.long_term: list[Tokens] = []

    def read(self, query_key, query_selection, top_k: int) -> dict[int, np.ndarray]:
        parts = [*self.long_term, *self.permanent, *self.temporary]
        if not parts:
            return {}
        tokens = join(parts)
        scores = similarity(tokens.key, tokens.shrinkage, query_key, query_selection)
        affinity = top_k_softmax(scores, top_k)
        used = np.split(affinity.sum(0), np.cumsum([len(part.key) for part in parts])[:-1])
        for part, usage in zip(parts, used, strict=True):
            if not any(part is frame for frame in self.permanent):
                part.usage = part.usage + usage
                part.life = part.life + FLOAT(1)
        return {name: affinity @ tokens.value[name] for name in self.objects}

    def write(self, frame: Tokens, permanent: bool, settings: Settings) -> None:
        if permanent or not self.permanent:
            self.permanent.append(frame)
            return
        self.temporary.append(frame)
        if not settings.long_term:
            del self.temporary[: max(0, len(self.temporary) - (settings.max_frames - 1))]
        elif len(self.temporary) == settings.max_frames - 1:
            self.consolidate(settings)

    def consolidate(self, settings: Settings) -> None:
        keep = settings.min_frames - 1
        cut = len(self.temporary) - keep
        candidates = join(self.temporary[:cut])
        self.temporary = self.temporary[cut:]
        best = np.argsort(-candidates.rate(), kind="stable")[: settings.prototypes]
        key, selection = candidates.key[best], candidates.selection[best]
        affinity = softmax(similarity(candidates.key, candidates.shrinkage, key, selection))
        value = {name: affinity @ array for name, array in candidates.value.items()}
        prototypes = Tokens.new(key, affinity @ candidates.shrinkage, selection, value)
        held = sum(len(part.key) for part in self.long_term)
        if held >= settings.max_tokens - settings.prototypes:
            kept = settings.max_tokens - settings.prototypes - settings.buffer_tokens
            if self.long_term:
                tokens = join(self.long_term)
                order = np.argsort(-tokens.rate(), kind="stable")[:kept]
                self.long_term = [tokens.take(order)]
        self.long_term.append(prototypes)

    def sizes(self) -> list[int]:
        permanent, temporary, long_term = (
            sum(len(part.key) for part in parts)
            for parts in (self.permanent, self.temporary, self.long_term)
        )
        return [permanent + temporary, permanent, long_term]
