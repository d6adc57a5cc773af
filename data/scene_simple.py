"""Level `simple`: every (size, colour, shape, place) once, a quarter of them kept for testing."""

import hashlib
from itertools import product

import numpy as np

from .base import Question, Split
from .counter_random import choices, uniforms
from .scene_claims import Claim, ObjectClaim
from .scene_objects import Integers, SceneBatch
from .scene_world import SceneWorld

HELD_OUT_SHARE = 0.25
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "middle", "right")


class SimpleScenes:
    """Draws scenes of one object, with their captions and questions.

    A scene is a combination of attributes, which its caption tells in full, and a background and a jitter, which it
    does not. The combinations with the lowest hashes are held out: a property of the world, the same for every seed.
    """

    def __init__(self, world: SceneWorld) -> None:
        self.world = world
        sizes = (world.sizes, world.colors, world.shapes, world.cells)
        self.combinations: Integers = np.array(list(product(*(range(len(names)) for names in sizes))))  # (K, 4)
        claims = [
            Claim("whole", (ObjectClaim(shape=shape, color=color, size=size, cell=cell),), exact=True)
            for size, color, shape, cell in self.combinations.tolist()
        ]
        captions = [world.language.write(claim) for claim in claims]
        by_hash = sorted(range(len(captions)), key=lambda row: hashlib.sha256(captions[row].encode()).digest())
        held_out = round(HELD_OUT_SHARE * len(captions))
        self.test_rows: Integers = np.array(by_hash[:held_out])
        self.train_rows: Integers = np.array(by_hash[held_out:])
        self._captions = captions
        self._questions = [self._ask(*row) for row in self.combinations.tolist()]

    @property
    def prompts(self) -> list[tuple[str, str]]:
        """(kind, caption) of every held-out combination, in the order in which the test split goes through them."""
        return [("whole", self._captions[row]) for row in self.test_rows]

    def draw(self, split: Split, seed: int, indices: Integers) -> tuple[SceneBatch, list[str]]:
        """Scenes and captions of the examples; `test` repeats all held-out combinations in turn, others are random."""
        u = uniforms(f"scenes/simple/{seed}/{split}", indices, 4)
        if split == "test":
            rows = self.test_rows[indices % len(self.test_rows)]
        else:
            rows = self.train_rows[choices(u[:, 0], len(self.train_rows))]
        size, color, shape, cell = self.combinations[rows].T[:, :, None]  # each (B, 1)
        scenes = SceneBatch(
            count=np.ones(len(indices), dtype=np.int64),
            shape=shape,
            color=color,
            size=size,
            texture=np.zeros_like(shape),
            cell=cell,
            jitter=choices(u[:, None, 1:3], 3) - 1,
            background=choices(u[:, 3], len(self.world.greys)),
        )
        return scenes, [self._captions[row] for row in rows]

    def ask(self, split: Split, seed: int, indices: Integers, scenes: SceneBatch) -> list[tuple[Question, ...]]:
        """The five questions of every scene; the same for every example of a combination."""
        rows = np.ravel_multi_index(
            (scenes.size[:, 0], scenes.color[:, 0], scenes.shape[:, 0], scenes.cell[:, 0]),
            (len(self.world.sizes), len(self.world.colors), len(self.world.shapes), len(self.world.cells)),
        )
        return [self._questions[row] for row in rows]

    def _ask(self, size: int, color: int, shape: int, cell: int) -> tuple[Question, ...]:
        return (
            Question("colour", "what colour is the shape?", self.world.colors[color]),
            Question("shape", "what shape is it?", self.world.shapes[shape]),
            Question("size", "what size is the shape?", self.world.sizes[size]),
            Question("vertical", "is it at the top, the middle or the bottom?", ROWS[cell // 3]),
            Question("horizontal", "is it at the left, the middle or the right?", COLUMNS[cell % 3]),
        )
