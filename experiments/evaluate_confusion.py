"""What a semantic encoder mistakes for what, read off the captions it prefers."""

from collections.abc import Sequence
from typing import Any

ATTRIBUTES = {"colour": "color", "shape": "shape", "place": "cell", "size": "size"}  # as metrics call them: in a claim


def caption_confusion(world: Any, true: Sequence[str], chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per attribute the matrix of true against chosen values, over pairs of captions that both name one.

    `names` are the values, `counts[i][j]` how often value i was true and j was in the caption chosen instead. Worlds of
    several objects give {}: a caption chosen for another object of the image is no mistake.

    Args:
        world: the `SceneWorld` of the data.
        true, chosen: each image's own caption, and the one that scores highest.
    """
    if world is None or world.max_objects > 1:
        return {}
    values = {"colour": world.colors, "shape": world.shapes, "place": world.cells, "size": world.sizes}
    pairs = [(world.read(a).objects[0], world.read(b).objects[0]) for a, b in zip(true, chosen, strict=True)]
    found: dict[str, dict[str, Any]] = {}
    for name, field in ATTRIBUTES.items():
        counts = [[0] * len(values[name]) for _ in values[name]]
        for one, other in pairs:
            row, column = getattr(one, field), getattr(other, field)
            if row is not None and column is not None:
                counts[row][column] += 1
        if any(map(any, counts)):
            found[name] = {"names": list(values[name]), "counts": counts}
    return found
