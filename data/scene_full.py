"""Level `full`: one to four objects, eight kinds of captions, a quarter of the (shape, colour) pairs held out."""

import hashlib
from collections.abc import Sequence
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .base import Question, Split
from .counter_random import Draws, choices
from .scene_claims import RELATIONS, Claim, ObjectClaim, related
from .scene_objects import Integers, Scene, SceneBatch, SceneObject
from .scene_questions import SceneQuestions
from .scene_world import SceneWorld

KINDS = ("single", "colour", "place", "two", "binding", "relation", "count", "full")
HELD_OUT_SHARE = 0.25
LONGEST_TEST_LIST = 128  # test captions of one kind; the kinds with thousands of them would crowd out the others

T = TypeVar("T")
Core = tuple[int, ...]  # what a caption of one kind fixes: shapes, (shape, colour) pairs, cells, a relation, a number


class FullScenes:
    """Draws scenes of several objects, with their captions and questions.

    Two things are held out, both properties of the world and the same for every seed. A quarter of the (shape, colour)
    pairs, two for each shape and each colour, is never drawn in training; test scenes consist of nothing else, so
    their colours, places, relations and numbers are all of unseen pairs. Captions of the kinds `single` and `two` name
    no colours, so a quarter of those captions is held out as well.
    """

    def __init__(self, world: SceneWorld) -> None:
        self.world = world
        colors = len(world.colors)
        shape_order = _by_hash(range(len(world.shapes)), "shape")
        color_order = _by_hash(range(colors), "colour")
        held_out = {
            (shape, color_order[(place + step) % colors]) for place, shape in enumerate(shape_order) for step in (0, 3)
        }
        everything = set(product(range(len(world.shapes)), range(colors)))
        self.pools: dict[Split, list[tuple[int, int]]] = {
            "train": sorted(everything - held_out),
            "val": sorted(everything - held_out),
            "test": sorted(held_out),
        }
        self._cores = {split: self._list_cores(split) for split in self.pools}
        self._questions = {split: SceneQuestions(world, pool) for split, pool in self.pools.items()}
        self._test_turns = self._take_turns()

    def draw(self, split: Split, seed: int, indices: Integers) -> tuple[SceneBatch, list[str]]:
        """Scenes and captions of the examples; `test` goes through the held-out captions in turn, others are random."""
        draws = Draws(f"scenes/full/{seed}/{split}", indices)
        kinds, cores = draws.below(len(KINDS)), draws.unit()
        if split == "test":
            turns = self._test_turns[indices % len(self._test_turns)]
            kinds, cores = turns[:, 0].astype(np.int64), turns[:, 1]
        scenes, relations = self._draw_objects(split, kinds, cores, draws)
        claims = map(self._claim, kinds.tolist(), scenes.scenes(), relations.tolist())
        return scenes, [self.world.language.write(claim) for claim in claims]

    def ask(self, split: Split, seed: int, indices: Integers, scenes: SceneBatch) -> list[tuple[Question, ...]]:
        """Six or seven questions of every scene, about objects that the wording tells apart."""
        u = Draws(f"scenes/full/{seed}/{split}/questions", indices).unit(9)
        ask = self._questions[split].ask
        return [ask(scene, row) for scene, row in zip(scenes.scenes(), u.tolist(), strict=True)]

    def _list_cores(self, split: Split) -> dict[str, list[Core]]:
        pool = range(len(self.pools[split]))
        pairs = self.pools[split]
        shapes = range(len(self.world.shapes))
        unlike = [(p, q) for p, q in product(pool, pool) if _unlike(pairs[p], pairs[q])]
        return {
            "single": self._share([(shape,) for shape in shapes], split),
            "colour": [(p,) for p in pool],
            "place": list(product(pool, range(len(self.world.cells)))),
            "two": self._share([(a, b) for a, b in product(shapes, shapes) if a < b], split, both_orders=True),
            "binding": unlike,
            "relation": [(*core, relation) for core in unlike for relation in range(len(RELATIONS))],
            "count": list(product(pool, range(2, self.world.max_objects + 1))),
            "full": [(count,) for count in range(1, self.world.max_objects + 1)],
        }

    def _share(self, cores: list[Core], split: Split, *, both_orders: bool = False) -> list[Core]:
        """The part of the cores that belongs to the split, by their hashes."""
        ranked = _by_hash(cores, "core")
        held_out = round(HELD_OUT_SHARE * len(cores))
        kept = sorted(ranked[:held_out] if split == "test" else ranked[held_out:])
        return kept + [core[::-1] for core in kept] if both_orders else kept

    def _take_turns(self) -> NDArray[np.float64]:
        """Rows (kind, core as a number in [0, 1)): the test captions, kinds mixed evenly from the first row on."""
        turns = []
        for kind, name in enumerate(KINDS):
            cores = _by_hash(range(len(self._cores["test"][name])), name)[:LONGEST_TEST_LIST]
            if name == "full":
                cores = cores * (LONGEST_TEST_LIST // len(cores))  # only the number of objects; the rest is random
            for place, core in enumerate(cores):
                turns.append(((place + 0.5) / len(cores), kind, (core + 0.5) / len(self._cores["test"][name])))
        return np.array(sorted(turns))[:, 1:]

    def _draw_objects(
        self, split: Split, kinds: Integers, cores: NDArray[np.float64], draws: Draws
    ) -> tuple[SceneBatch, Integers]:
        """Scenes that keep what the cores ask for, and the relation of each (0 where there is none)."""
        world, slots = self.world, self.world.max_objects
        pool = np.array(self.pools[split])
        pair = draws.below(len(pool), slots)
        keys = draws.unit(len(world.cells))  # objects go to the cells with the lowest keys
        relation = np.zeros_like(kinds)
        told = np.ones_like(kinds)  # objects that the caption speaks of
        color, cells = draws.unit(slots), draws.unit()
        for kind in np.unique(kinds):
            mine = np.flatnonzero(kinds == kind)
            table = np.array(self._cores[split][KINDS[kind]])
            core = table[choices(cores[mine], len(table))]  # (b, numbers of the core)
            match KINDS[kind]:
                case "single" | "two":
                    told[mine] = core.shape[1]
                    of_shape = np.stack([np.flatnonzero(pool[:, 0] == shape) for shape in range(len(world.shapes))])
                    options = of_shape[core]  # (b, objects, colours of the pool)
                    which = choices(color[mine, : core.shape[1]], options.shape[-1])
                    pair[mine, : core.shape[1]] = np.take_along_axis(options, which[..., None], axis=-1)[..., 0]
                case "colour":
                    pair[mine, 0] = core[:, 0]
                case "place":
                    pair[mine, 0] = core[:, 0]
                    keys[mine, core[:, 1]] = -1
                case "binding":
                    told[mine] = 2
                    pair[mine, :2] = core
                case "relation":
                    told[mine] = 2
                    pair[mine, :2], relation[mine] = core[:, :2], core[:, 2]
                    options = _RELATED_CELLS[core[:, 2]]  # (b, 27, 2)
                    first, second = options[np.arange(len(mine)), choices(cells[mine], options.shape[1])].T
                    keys[mine, first], keys[mine, second] = -2, -1
                case "count":
                    told[mine] = core[:, 1]
                    pair[mine] = np.where(np.arange(slots) < core[:, 1:], core[:, :1], pair[mine])
                case "full":
                    told[mine] = core[:, 0]
        # Half the scenes hold one object more, unlike the first, so that what is said of that one or the number holds.
        extra = np.flatnonzero((draws.below(2) == 1) & (told < slots) & (kinds != KINDS.index("full")))
        unlike = np.stack([[q for q, other in enumerate(pool) if _unlike(first, other)] for first in pool])
        pair[extra, told[extra]] = unlike[pair[extra, 0], draws.below(unlike.shape[1])[extra]]
        count = told.copy()
        count[extra] += 1
        scenes = SceneBatch(
            count=count,
            shape=pool[pair, 0],
            color=pool[pair, 1],
            size=draws.below(len(world.sizes), slots),
            texture=draws.below(len(world.textures), slots),
            cell=np.argsort(keys, axis=1)[:, :slots],
            jitter=draws.below(3, slots, 2) - 1,
            background=draws.below(len(world.greys)),
        )
        return scenes, relation

    def _claim(self, kind: int, scene: Scene, relation: int) -> Claim:
        name, objects = KINDS[kind], scene.objects
        if name == "full":
            ordered = sorted(objects, key=lambda found: found.cell)
            told = [ObjectClaim(o.shape, o.color, o.size, o.texture, o.cell) for o in ordered]
            return Claim(name, tuple(told), background=scene.background, exact=True)
        first = objects[0]
        if name in ("single", "two"):
            return Claim(name, tuple(ObjectClaim(found.shape) for found in objects[: 1 + (name == "two")]))
        if name in ("binding", "relation"):
            told = tuple(ObjectClaim(found.shape, found.color) for found in objects[:2])
            return Claim(name, told, relation=relation if name == "relation" else None)
        described = ObjectClaim(first.shape, first.color, cell=first.cell if name == "place" else None)
        alike = sum(described.matches(found) for found in objects) if name == "count" else None
        return Claim(name, (described,), count=alike)


def _by_hash(items: Sequence[T], salt: str) -> list[T]:
    return sorted(items, key=lambda item: hashlib.sha256(f"{salt} {item}".encode()).digest())


def _unlike(pair: Sequence[int], other: Sequence[int]) -> bool:
    return pair[0] != other[0] and pair[1] != other[1]


def _related_cells() -> Integers:
    """For each relation the (cell, cell) pairs that stand in it: (relations, 27, 2)."""
    places = [SceneObject(0, 0, 0, 0, cell) for cell in range(9)]
    return np.array(
        [[(a.cell, b.cell) for a, b in product(places, places) if related(r, a, b)] for r in range(len(RELATIONS))]
    )


_RELATED_CELLS = _related_cells()
