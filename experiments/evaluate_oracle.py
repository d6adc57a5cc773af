"""The oracle of an evaluation: whether pictures of scenes show what their captions say."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..data.base import DataSource, ImageDataset
from .phase import Evaluation


def add_oracle(
    result: Evaluation,
    prefix: str,
    images: Tensor,
    captions: Sequence[str],
    rows: Sequence[int],
    source: DataSource,
    test: ImageDataset,
    note: Callable[[str], None],
) -> Sequence[dict[str, bool] | None]:
    """Add `<prefix>/...` with chance floors and return the verdict of each image (None: not checkable).

    Args:
        images: (n, 3, H, W) uint8.
        rows: the test example each caption comes from; their true scenes give the chance floor.
    """
    from ..metrics.oracle import SceneOracle, summarize

    name = f"{prefix}/all"
    world: Any = source.world
    if world is None:
        result.absent[name] = f"{test.name} has no scenes whose content can be checked; data=scenes has"
        return [None] * len(images)
    try:
        oracle = SceneOracle(world, images.shape[-1])
    except ValueError as error:  # pictures too small to be parsed
        result.absent[name] = str(error)
        return [None] * len(images)
    note(f"oracle on {len(images)} pictures")
    verdicts = oracle.score(images.float() / 255, captions)
    floor = None
    if len(set(captions)) > 1:
        scenes = test.scenes(rows)  # pyright: ignore[reportAttributeAccessIssue]
        floor = oracle.chance_floor(captions, scenes)
    result.metrics |= summarize(verdicts, prefix, floor)
    return verdicts
