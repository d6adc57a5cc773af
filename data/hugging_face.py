"""Image data sets by their name on the Hugging Face hub, or from a folder that the `datasets` library reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .arrow_table import ArrowRecords, Columns
from .encoded_source import EncodedSource
from .records import Records


@dataclass(kw_only=True, eq=False)
class HuggingFace(EncodedSource):
    """A data set that `datasets.load_dataset` finds; it is downloaded once and then read from that library's cache.

    Args:
        dataset: name on the hub ("uoft-cs/cifar10") or a local folder.
        train, val, test: names of its splits; slices such as "train[:80%]" work.
        subset: its configuration, for data sets that have several.
        revision: commit or tag on the hub; None takes the newest.
        image_column, caption_column, label_column: as in `Parquet`.
    """

    dataset: str
    train: str | Sequence[str] = "train"
    subset: str | None = None
    revision: str | None = None
    image_column: str = "auto"
    caption_column: str | None = "auto"
    label_column: str | None = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = f"hf/{self.dataset}" + (f"/{self.subset}" if self.subset else "")

    def open(self, where: str | Sequence[str], config_key: str) -> Records:
        if not isinstance(where, str):
            raise ValueError(f"{config_key}={list(where)} must be one split name, such as train.")
        try:
            import datasets
        except ImportError:
            raise ValueError("data=hf needs the package datasets; run pip install 'tessella[data]'.") from None
        try:
            loaded = datasets.load_dataset(self.dataset, self.subset, split=where, revision=self.revision)
        except (OSError, ValueError, RuntimeError) as error:  # not found, no network, no such split or subset
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"data.dataset={self.dataset} with {config_key}={where} could not be loaded: {reason.rstrip('.')}. "
                "Without the network give a local folder, or its parquet files to data=parquet."
            ) from None
        location = f"{self.dataset} ({where})"
        columns = Columns(
            loaded.features.arrow_schema, location, self.image_column, self.caption_column, self.label_column
        )
        return ArrowRecords(
            table=loaded.with_format("arrow").select_columns(columns.all)[:],
            columns=columns,
            location=location,
            files=(),
            identity=loaded._fingerprint,
            prefixes=[(where, len(loaded))],
            folder=Path("."),
        )
