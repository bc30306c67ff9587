"""In which order samples are drawn: deterministic walks, of which every part can be known without the part before."""

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from meta_animator.diffusion.randomness import rng

Owner = tuple[str, str]  # person, clip
FINENESS = 8  # turns of a person all of whose clips are here, where others have only some of theirs here


class Shuffled:
    """Samples in shuffled epochs. share: of the draws of `whole`, those that `indices` are due."""

    def __init__(self, indices: Sequence[int], whole: Sequence[int], seed: int, name: str):
        self.indices, self.seed, self.name = indices, seed, name
        self.share = len(indices) / max(1, len(whole))

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, position: int) -> int:
        """Draw number `position`."""
        epoch, place = divmod(position, len(self.indices))
        return self.indices[_permutation(self.seed, self.name, epoch, len(self.indices))[place]]


class ByPerson(Shuffled):
    """Samples such that every person has as many draws, every clip as many of its person's, and every frame of its clip's.

    People come in shuffled rounds; a person of whose clips only some are among `indices` has a part in them.
    """

    def __init__(self, indices: Sequence[int], whole: Sequence[int], seed: int, name: str, owners: Mapping[int, Owner]):
        super().__init__(indices, whole, seed, name)
        groups: dict[str, dict[str, list[int]]] = {}
        for index in indices:
            person, clip = owners[index]
            groups.setdefault(person, {}).setdefault(clip, []).append(index)
        self.people = [(person, list(clips.items())) for person, clips in groups.items()]
        everywhere = Counter(person for person, _ in {owners[index] for index in whole})
        weights = [len(clips) / everywhere[person] for person, clips in self.people]
        self.share = sum(weights) / max(1, len(everywhere))
        fineness = 1 if min(weights, default=1) == 1 else FINENESS
        turns = [max(1, round(fineness * weight)) for weight in weights]
        self.turns = [(k, turn, count) for k, count in enumerate(turns) for turn in range(count)]

    def sample(self, position: int) -> int:
        """Draw number `position`."""
        turns = self.turns
        epoch, place = divmod(position, len(turns))
        which, turn, count = turns[_permutation(self.seed, self.name, epoch, len(turns))[place]]
        person, clips = self.people[which]
        number = epoch * count + turn  # of this person's draws
        cycle, step = divmod(number, len(clips))
        clip = walk(step, len(clips), f"{self.seed} {self.name} {person} {cycle}")  # by number: folders move
        frames = clips[clip][1]
        return frames[walk(cycle % len(frames), len(frames), f"{self.seed} {self.name} {person} {clip} {cycle // len(frames)}")]


def walk(step: int, size: int, key: str) -> int:
    """Place 0 <= step < size of a walk through 0 ... size - 1 that visits each once and, however short, goes everywhere: in
    strides of the golden section, from a start that depends on `key`."""
    stride = max(1, round(size * 0.6180339887))
    while math.gcd(stride, size) > 1:
        stride += 1
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    return (start + step * stride) % size


@functools.lru_cache(maxsize=64)
def _permutation(seed: int, stream: str, epoch: int, size: int) -> tuple[int, ...]:
    return tuple(rng(seed, stream, epoch).permutation(size).tolist())
