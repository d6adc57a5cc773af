"""What a scene is made of: attributes as indices into the world's tables."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class SceneObject:
    """One object; every field indexes a table of the world."""

    shape: int
    color: int
    size: int
    texture: int
    cell: int  # row-major in the 3 x 3 grid

    @property
    def row(self) -> int:
        return self.cell // 3

    @property
    def column(self) -> int:
        return self.cell % 3


@dataclass(frozen=True)
class Scene:
    """Objects on a flat background."""

    objects: tuple[SceneObject, ...]
    background: int


@dataclass(frozen=True, eq=False)
class SceneBatch:
    """B scenes of up to M objects as arrays; slots from `count` on hold values that mean nothing."""

    count: Integers  # (B,)
    shape: Integers  # (B, M)
    color: Integers
    size: Integers
    texture: Integers
    cell: Integers
    jitter: Integers  # (B, M, 2): steps down and to the right of the cell's centre, each -1, 0 or 1
    background: Integers  # (B,)

    def __len__(self) -> int:
        return len(self.count)

    def scenes(self) -> list[Scene]:
        """The same scenes one by one; the jitter, which no caption speaks of, is left out."""
        attributes = np.stack([self.shape, self.color, self.size, self.texture, self.cell], axis=-1).tolist()
        return [
            Scene(tuple(SceneObject(*row) for row in rows[:count]), background)
            for rows, count, background in zip(attributes, self.count.tolist(), self.background.tolist(), strict=True)
        ]
