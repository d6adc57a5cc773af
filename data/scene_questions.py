"""Questions about scenes of several objects, and their answers."""

from collections.abc import Sequence

from .base import Question
from .scene_language import NUMBERS, plural, with_article
from .scene_objects import Scene, SceneObject
from .scene_world import SceneWorld


class SceneQuestions:
    """Asks about one scene at a time, only what has a single answer.

    Args:
        pool: (shape, colour) pairs that scenes of this split hold. Things that are not there are named from the same
            pairs, otherwise a pair that is never drawn would give the answer "no" away.
    """

    def __init__(self, world: SceneWorld, pool: list[tuple[int, int]]) -> None:
        self.world = world
        self._near = {
            pair: [other for other in pool if other != pair and (other[0] == pair[0] or other[1] == pair[1])]
            for pair in pool
        }

    def ask(self, scene: Scene, u: Sequence[float]) -> tuple[Question, ...]:
        """One question of each kind (`place` only if some object is the only one of its shape and colour).

        Args:
            u: nine random numbers in [0, 1), which choose the objects and the wording.
        """
        world, objects = self.world, scene.objects
        shapes = [found.shape for found in objects]
        colors = [found.color for found in objects]
        pairs = list(zip(shapes, colors, strict=True))

        def pick(number: float) -> int:
            return int(number * len(objects))

        def by_shape(which: int) -> str:
            return f"the {world.shapes[shapes[which]]}" if shapes.count(shapes[which]) == 1 else by_place(which)

        def by_color(which: int) -> str:
            return f"the {world.colors[colors[which]]} shape" if colors.count(colors[which]) == 1 else by_place(which)

        def by_place(which: int) -> str:
            return f"the shape at the {world.cells[objects[which].cell]}"

        asked = pick(u[0])
        questions = [self._count(objects, asked, u[1])]
        asked = pick(u[2])
        questions.append(Question("colour", f"what colour is {by_shape(asked)}?", world.colors[colors[asked]]))
        asked = pick(u[3])
        questions.append(Question("shape", f"what is {by_color(asked)}?", world.shapes[shapes[asked]]))
        alone = [which for which, pair in enumerate(pairs) if pairs.count(pair) == 1]
        if alone:
            asked = alone[int(u[4] * len(alone))]
            questions.append(
                Question("place", f"where is the {self._name(pairs[asked])}?", world.cells[objects[asked].cell])
            )
        asked = pick(u[5])
        texture = world.textures[objects[asked].texture]
        questions.append(Question("texture", f"is {by_shape(asked)} {' or '.join(world.textures)}?", texture))
        questions.append(self._existence(pairs, pick(u[6]), u[7], u[8]))
        questions.append(Question("background", "what colour is the background?", world.backgrounds[scene.background]))
        return tuple(questions)

    def _count(self, objects: Sequence[SceneObject], asked: int, wording: float) -> Question:
        """How many objects there are, or how many share the colour or the shape of one of them."""
        if wording < 1 / 3:
            return Question("count", "how many shapes are there?", NUMBERS[len(objects)])
        if wording < 2 / 3:
            color = objects[asked].color
            alike = sum(found.color == color for found in objects)
            return Question("count", f"how many {self.world.colors[color]} shapes are there?", NUMBERS[alike])
        shape = objects[asked].shape
        alike = sum(found.shape == shape for found in objects)
        return Question("count", f"how many {plural(self.world.shapes[shape])} are there?", NUMBERS[alike])

    def _existence(self, pairs: list[tuple[int, int]], asked: int, present: float, absent: float) -> Question:
        """Yes and no equally often; what is not there differs from something that is in the shape or in the colour."""
        pair, answer = pairs[asked], "yes"
        if present < 0.5:
            near = self._near[pair]
            start = int(absent * len(near))
            missing = [other for other in near[start:] + near[:start] if other not in pairs]
            if missing:
                pair, answer = missing[0], "no"
        return Question("existence", f"is there {with_article(self._name(pair))}?", answer)

    def _name(self, pair: tuple[int, int]) -> str:
        return f"{self.world.colors[pair[1]]} {self.world.shapes[pair[0]]}"
