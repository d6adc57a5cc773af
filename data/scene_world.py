"""The world of procedural scenes: its tables, its geometry, and how scenes become pictures, captions and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import scene_shapes
from .scene_claims import Claim, holds
from .scene_language import CELLS, SIZES, TEXTURES, SceneLanguage
from .scene_objects import Scene, SceneBatch, SceneObject

Level = Literal["simple", "full"]
REFERENCE_SIZE = 64  # image size in which all lengths below are given
STRIPE_PERIOD = 5.0  # not 4: such stripes can vanish when an image is halved
STRIPE_SHADE = 0.55  # brightness of the dark stripes; scaling keeps the direction of the colour's chroma
SMALLEST_IMAGE = 16

PALETTE = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 50),
    "purple": (150, 60, 190),
    "cyan": (60, 200, 210),
    "orange": (240, 135, 40),
    "pink": (245, 95, 165),
}


@dataclass(frozen=True)
class _Tables:
    shapes: tuple[str, ...]
    colors: tuple[str, ...]
    textures: tuple[str, ...]
    backgrounds: tuple[str, ...]  # empty: there are greys, but no caption names them
    greys: tuple[int, ...]  # 0..255
    radii: tuple[float, ...]  # half the width of a small and of a large object's box
    centers: tuple[float, ...]  # of the three rows and columns
    jitter: float  # length of one step off the centre
    max_objects: int


# Small objects decide what tokenizers of few thousand steps can learn: the objects of `simple` are as large as a grid
# of three places allows for one object, those of `full` as large as nine of them fit without touching.
LEVELS: dict[str, _Tables] = {
    "simple": _Tables(
        shapes=("circle", "square", "triangle", "cross"),
        colors=("red", "green", "blue", "yellow", "purple", "cyan"),
        textures=("plain",),
        backgrounds=(),
        greys=(20, 45, 70, 95),
        radii=(7.0, 13.0),
        centers=(16.0, 32.0, 48.0),
        jitter=2.0,
        max_objects=1,
    ),
    "full": _Tables(
        shapes=("circle", "square", "triangle", "diamond", "cross", "ring", "star", "heart"),
        colors=tuple(PALETTE),
        textures=TEXTURES,
        backgrounds=("black", "grey", "white"),
        greys=(20, 115, 235),
        radii=(5.5, 8.5),
        centers=(11.0, 32.0, 53.0),
        jitter=1.0,
        max_objects=4,
    ),
}


class SceneWorld:
    """Everything that is true of all scenes of one level, and nothing about seeds or splits.

    Args:
        level: `simple`, one plain object in 3 x 3 places; or `full`, up to four objects with textures and backgrounds.
    """

    def __init__(self, level: Level) -> None:
        if level not in LEVELS:
            raise ValueError(f"level={level!r} is unknown; use one of {', '.join(LEVELS)} (data.level).")
        tables = LEVELS[level]
        self.level: Level = level
        self.shapes, self.colors = tables.shapes, tables.colors
        self.sizes, self.textures, self.cells = SIZES, tables.textures, CELLS
        self.backgrounds, self.greys = tables.backgrounds, tables.greys
        self.max_objects = tables.max_objects
        self.palette = np.array([PALETTE[name] for name in tables.colors], dtype=np.float32) / 255  # (colors, 3)
        self.shades = np.array([1.0, STRIPE_SHADE], dtype=np.float32)  # of a bright and of a dark stripe
        self._tables = tables
        self.language = SceneLanguage(
            tables.shapes, tables.colors, tables.backgrounds, one_object=tables.max_objects == 1
        )
        self._claims: dict[str, Claim] = {}  # a study asks for the same captions many times
        self._drawn: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}  # image size -> sprites, stripes

    def radii(self, image_size: int) -> tuple[float, ...]:
        """Half the width of a small and of a large object's box, in pixels."""
        return tuple(radius * image_size / REFERENCE_SIZE for radius in self._tables.radii)

    def centers(self, image_size: int) -> NDArray[np.float64]:
        """Centres of the rows, which are those of the columns, in pixels: (3,)."""
        return np.array(self._tables.centers) * image_size / REFERENCE_SIZE

    def coverage(self, image_size: int) -> NDArray[np.float32]:
        """Share of every pixel covered by each (shape, size): (shapes, sizes, S, S) in [0, 1], centred."""
        return scene_shapes.sprites(self.shapes, self.radii(image_size))

    def stripes(self, image_size: int) -> NDArray[np.float32]:
        """Share of each row of `coverage` that is bright when an object is striped: (S,) in [0, 1]."""
        half = ceil(max(self.radii(image_size)))
        return scene_shapes.stripes(half, STRIPE_PERIOD * image_size / REFERENCE_SIZE)

    def check_image_size(self, image_size: int) -> None:
        """Raises ValueError for images in which the objects would be smaller than a few pixels."""
        if image_size < SMALLEST_IMAGE:
            raise ValueError(
                f"image_size={image_size} is too small for scenes; use {SMALLEST_IMAGE} or more (tokenizer.image_size)."
            )

    def render(self, scenes: SceneBatch, image_size: int) -> NDArray[np.uint8]:
        """Pictures of the scenes: (B, 3, image_size, image_size) RGB; later objects cover earlier ones.

        Raises:
            ValueError: images too small to hold the objects.
        """
        self.check_image_size(image_size)
        sprites, bright = self._sprites(image_size)
        side = sprites.shape[-1]
        greys = np.array(self.greys, dtype=np.uint8)[scenes.background]
        images = np.empty((len(scenes), 3, image_size, image_size), dtype=np.uint8)
        images[:] = greys[:, None, None, None]
        windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(2, 3), writeable=True)
        corners = self._corners(scenes, image_size, side)  # (B, M, 2)
        dark_to_bright = self.shades[1] + (self.shades[0] - self.shades[1]) * bright  # (S,)
        for slot in range(self.max_objects):
            rows = np.flatnonzero(scenes.count > slot)
            covered = sprites[scenes.shape[rows, slot], scenes.size[rows, slot]][:, None]  # (b, 1, S, S)
            colors = 255 * self.palette[scenes.color[rows, slot]][:, :, None, None]  # (b, 3, 1, 1)
            if len(self.textures) > 1:
                striped = (scenes.texture[rows, slot] == 1)[:, None, None, None]
                colors = colors * np.where(striped, dark_to_bright[:, None], np.float32(1))  # (b, 3, S, 1)
            y, x = corners[rows, slot].T
            below = windows[rows, :, y, x]  # (b, 3, S, S)
            windows[rows, :, y, x] = (below + covered * (colors - below) + np.float32(0.5)).astype(np.uint8)
        return images

    def read(self, caption: str) -> Claim:
        """What a caption claims.

        Raises:
            ValueError: a caption outside the grammar.
        """
        if caption not in self._claims:
            self._claims[caption] = self.language.read(caption)
        return self._claims[caption]

    def scene(self, objects: Sequence[Sequence[int]], background: int) -> Scene:
        """A scene from (shape, color, size, texture, cell) rows; -1 stands for what could not be told."""
        return Scene(tuple(SceneObject(*row) for row in objects), background)

    def judge(self, caption: str, scene: Scene) -> dict[str, bool]:
        """Which parts of a caption a scene keeps, under the names that metrics use; `all` is the whole caption.

        One-object worlds judge every claimed attribute on the first object of the scene; worlds of several objects
        give the verdict a second time under the kind of the caption, because kinds differ too much to be averaged.

        Raises:
            ValueError: a caption outside the grammar.
        """
        claim = self.read(caption)
        whole = holds(claim, scene)
        if self.max_objects > 1:
            return {"all": whole, f"kind/{claim.kind}": whole}
        nothing = SceneObject(-1, -1, -1, -1, -1)
        return claim.objects[0].agreement(next(iter(scene.objects), nothing)) | {"all": whole}

    def _corners(self, scenes: SceneBatch, image_size: int, side: int) -> NDArray[np.int64]:
        """Top left pixel (y, x) of every object's sprite: (B, M, 2). Centres lie on whole pixels at every size."""
        step = self._tables.jitter * image_size / REFERENCE_SIZE
        cells = np.stack([scenes.cell // 3, scenes.cell % 3], axis=-1)
        exact = self.centers(image_size)[cells] + step * scenes.jitter
        return np.clip(np.floor(exact + 0.5).astype(np.int64) - side // 2, 0, image_size - side)

    def _sprites(self, image_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if image_size not in self._drawn:
            self._drawn[image_size] = self.coverage(image_size), self.stripes(image_size)
        return self._drawn[image_size]
