"""What a caption claims, and whether a scene keeps it."""

from dataclasses import dataclass
from itertools import permutations

from .scene_objects import Scene, SceneObject

RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True)
class ObjectClaim:
    """One object as far as it is described; None leaves an attribute open."""

    shape: int
    color: int | None = None
    size: int | None = None
    texture: int | None = None
    cell: int | None = None

    def agreement(self, other: SceneObject) -> dict[str, bool]:
        """Every claimed attribute, under the name that metrics use, and whether `other` has it."""
        pairs = {
            "colour": (self.color, other.color),
            "place": (self.cell, other.cell),
            "size": (self.size, other.size),
            "shape": (self.shape, other.shape),
            "texture": (self.texture, other.texture),
        }
        return {name: claimed == found for name, (claimed, found) in pairs.items() if claimed is not None}

    def matches(self, other: SceneObject) -> bool:
        return all(self.agreement(other).values())


@dataclass(frozen=True)
class Claim:
    """A caption's meaning. Scenes may hold more than the claimed objects, unless `exact`."""

    kind: str
    objects: tuple[ObjectClaim, ...]
    relation: int | None = None  # of the first object to the second, an index into RELATIONS
    count: int | None = None  # exactly so many objects like the first
    background: int | None = None
    exact: bool = False  # the claimed objects are all there are


def related(relation: int, first: SceneObject, second: SceneObject) -> bool:
    """Whether `first` stands in the relation to `second`, judged by rows and columns of the grid."""
    return (
        first.column < second.column,
        first.column > second.column,
        first.row < second.row,
        first.row > second.row,
    )[relation]


def holds(claim: Claim, scene: Scene) -> bool:
    """Whether the scene keeps every part of the claim; two claimed objects need two objects."""
    if claim.background is not None and claim.background != scene.background:
        return False
    if claim.count is not None:
        return sum(claim.objects[0].matches(found) for found in scene.objects) == claim.count
    if claim.exact and len(scene.objects) != len(claim.objects):
        return False
    return any(
        all(claimed.matches(found) for claimed, found in zip(claim.objects, assigned, strict=True))
        and (claim.relation is None or related(claim.relation, assigned[0], assigned[1]))
        for assigned in permutations(scene.objects, len(claim.objects))
    )
