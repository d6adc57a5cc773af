"""What folder, WebDataset, parquet and hub sources share: splits, class names, captions from labels, preparation."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from .base import SPLITS, DataSource, ImageDataset, Split, check_split
from .encoded_images import EncodedImages, Pool
from .locations import short_name
from .preparation import Preparation
from .records import Records, Unusable
from .splits import limited, members, positions


@dataclass(kw_only=True, eq=False)
class EncodedSource(DataSource):
    """Encoded images in train, val and test.

    A split whose location is given is exactly what lies there. The others are cut from `train` by a seeded hash of each
    example's key. Evaluation splits are never augmented.

    Args:
        train, val, test: where the images are; val and test may be None.
        val_fraction, test_fraction: share of `train` that becomes val or test where these have no location.
        max_train, max_val, max_test: at most so many examples, chosen by hash; None is no limit.
        resize, crop, flip, min_size: see `Preparation`.
        seed: of splits, limits and augmentation.
    """

    train: str | Sequence[str]
    val: str | Sequence[str] | None = None
    test: str | Sequence[str] | None = None
    val_fraction: float = 0.05
    test_fraction: float = 0.1
    max_train: int | None = None
    max_val: int | None = None
    max_test: int | None = None
    resize: Literal["shortest", "squash", "pad"] = "shortest"
    crop: Literal["center", "random"] = "center"
    flip: float = 0.0
    min_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        self.name = f"{type(self).__name__.lower()}/{short_name(self.train)}"
        self.policy = Preparation(
            resize=self.resize, crop=self.crop, flip=self.flip, min_size=self.min_size, seed=self.seed
        )
        for key in ("val_fraction", "test_fraction"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)} must lie in [0, 1), such as 0.1 (data.{key}).")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction} and test_fraction={self.test_fraction} leave nothing to train on; "
                "use 0.05 and 0.1 (data.val_fraction, data.test_fraction)."
            )
        for key in ("max_train", "max_val", "max_test"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)} leaves nothing; use 1 or more, or null (data.{key}).")

    @abstractmethod
    def open(self, where: str | Sequence[str], config_key: str) -> Records:
        """The records at a location.

        Raises:
            ValueError: nothing there, or not what this source reads.
        """

    def split(self, name: Split, image_size: int) -> ImageDataset:
        check_split(name)
        pool_name: Split = "train" if name not in self._pools else name
        pool = self._pools[pool_name]
        where = positions(pool.records.keys, self.seed)
        # only what is cut from the train location is removed from it
        val_fraction = 0.0 if "val" in self._pools else self.val_fraction
        test_fraction = 0.0 if "test" in self._pools else self.test_fraction
        rows = members(where, name, val_fraction, test_fraction) if pool_name == "train" else np.arange(len(where))
        bad = pool.unusable.reasons
        refused = [(pool.records.keys[row], bad[row]) for row in rows.tolist() if row in bad]
        usable = np.array([row for row in rows.tolist() if row not in bad], dtype=np.int64)
        usable = limited(usable, where, getattr(self, f"max_{name}"))
        if len(usable) == 0:
            remedy = (
                "" if name == "train" else f"; raise data.{name}_fraction or give data.{name} a location of its own"
            )
            raise ValueError(f"no {name} examples among the {len(where)} images of {pool.records.location}{remedy}.")
        policy = self.policy if name == "train" else self.policy.plain()
        return EncodedImages(self.name, pool, usable, policy, image_size, refused)

    @cached_property
    def _pools(self) -> dict[Split, Pool]:
        """Every location, opened and checked once."""
        records: dict[Split, Records] = {}
        for split in SPLITS:
            where = getattr(self, split)
            if where is not None:
                records[split] = self.open(where, f"data.{split}")
        _check_disjoint(records)
        class_names = _common_class_names(records)
        pools: dict[Split, Pool] = {}
        for split, opened in records.items():
            _check_keys(opened)
            unusable = Unusable(opened)
            unusable.check_headers(self.min_size)
            labels = _label_ids(opened, class_names)
            captions = opened.captions
            if captions is None and labels is not None and class_names is not None:
                captions = [f"a photo of a {class_names[label].replace('_', ' ')}" for label in labels]
            pools[split] = Pool(opened, unusable, captions, labels, None if labels is None else class_names)
        return pools


def _check_keys(opened: Records) -> None:
    seen = set()
    for key in opened.keys:
        if key in seen:
            raise ValueError(f"two examples in {opened.location} are called {key}; every example needs its own name.")
        seen.add(key)


def _check_disjoint(records: dict[Split, Records]) -> None:
    owner = {}
    for split, opened in records.items():
        for file in opened.files:
            other = owner.setdefault(file.resolve(), split)
            if other != split:
                raise ValueError(
                    f"{file} belongs to data.{other} and to data.{split}; "
                    "give every split its own files, or only data.train."
                )


def _common_class_names(records: dict[Split, Records]) -> tuple[str, ...] | None:
    """One list for all splits, so that a label means the same in each: the names given, else the sorted names met."""
    given = {opened.class_names for opened in records.values() if opened.class_names is not None}
    if len(given) > 1:
        raise ValueError(f"the splits name their classes differently: {' / '.join(str(names) for names in given)}.")
    if given:
        return given.pop()
    met = {str(label) for opened in records.values() for label in opened.labels or () if isinstance(label, str)}
    return tuple(sorted(met)) or None


def _label_ids(opened: Records, class_names: tuple[str, ...] | None) -> list[int] | None:
    if opened.labels is None:
        return None
    if class_names is None:
        return [int(label) for label in opened.labels]
    number = {name: index for index, name in enumerate(class_names)}
    ids = [number.get(label, -1) if isinstance(label, str) else int(label) for label in opened.labels]
    for row, label in enumerate(ids):
        if not 0 <= label < len(class_names):
            raise ValueError(
                f"{opened.keys[row]} in {opened.location} has label {opened.labels[row]!r}, which is none of the "
                f"{len(class_names)} classes {', '.join(class_names[:5])}, ..."
            )
    return ids
