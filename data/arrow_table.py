"""Images in the columns of an Arrow table, in the layout Hugging Face writes: struct{bytes, path} or plain bytes."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .images import ImageError
from .records import Records

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture", "bytes")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
LABEL_COLUMNS = ("label", "labels", "class", "cls", "fine_label")


class Columns:
    """The columns that hold images, captions and labels, found by type and usual name, or taken as named.

    Args:
        schema: of the table.
        location: for messages.
        image, caption, label: a column's name, "auto", or None for "there is none" (not for the image).

    Raises:
        ValueError: a named column that is not there or is of the wrong type, or no single image column to be found.
    """

    def __init__(self, schema: "pa.Schema", location: str, image: str, caption: str | None, label: str | None) -> None:
        import pyarrow as pa

        self.schema = schema
        self.location = location

        def is_text(kind: "pa.DataType") -> bool:
            return pa.types.is_string(kind) or pa.types.is_large_string(kind)

        def is_label(kind: "pa.DataType") -> bool:
            return pa.types.is_integer(kind) or is_text(kind)

        found = self._find("image", image, IMAGE_COLUMNS, _is_image, "struct{bytes, path} or binary")
        if found is None:
            candidates = [field.name for field in schema if _is_image(field.type)]
            if len(candidates) != 1:
                self._refuse(
                    f"no column that is clearly the image ({' '.join(candidates) or 'none holds bytes'})", "image"
                )
            found = candidates[0]
        self.image: str = found
        self.caption = self._find("caption", caption, CAPTION_COLUMNS, is_text, "text")
        self.label = self._find("label", label, LABEL_COLUMNS, is_label, "integers or text")

    @property
    def all(self) -> list[str]:
        return [name for name in (self.image, self.caption, self.label) if name is not None]

    def class_names(self) -> tuple[str, ...] | None:
        """The names of a ClassLabel column, from the metadata that `datasets` writes into the schema."""
        metadata = (self.schema.metadata or {}).get(b"huggingface")
        if metadata is None or self.label is None:
            return None
        features = json.loads(metadata).get("info", {}).get("features", {})
        feature = features.get(self.label) if isinstance(features, dict) else None
        names = feature.get("names") if isinstance(feature, dict) else None
        return tuple(names) if names else None

    def _find(self, what: str, asked: str | None, usual: Sequence[str], fits: Any, kind: str) -> str | None:
        if asked is None:
            return None
        if asked == "auto":
            names = [name for name in usual if name in self.schema.names and fits(self.schema.field(name).type)]
            return names[0] if names else None
        if asked not in self.schema.names:
            self._refuse(f"no column {asked!r}", what)
        if not fits(self.schema.field(asked).type):
            self._refuse(f"column {asked!r} of type {self.schema.field(asked).type}, which is not {kind}", what)
        return asked

    def _refuse(self, problem: str, what: str) -> None:
        raise ValueError(f"{self.location} has {problem}; it has {', '.join(self.schema.names)} (data.{what}_column).")


class ArrowRecords(Records):
    """Rows of a table; keys are `<prefix>/<row>`.

    Args:
        table: with the columns named, in memory or memory-mapped.
        prefixes: (name, number of rows) of each file the rows came from, in order.
        folder: what relative paths start at, for rows that hold a path and no bytes.
    """

    def __init__(
        self,
        table: "pa.Table",
        columns: Columns,
        location: str,
        files: Sequence[Path],
        identity: str,
        prefixes: Sequence[tuple[str, int]],
        folder: Path,
    ) -> None:
        self.location = location
        self.files = files
        self.identity = identity
        self.keys = [f"{name}/{row}" for name, rows in prefixes for row in range(rows)]
        self.captions = None if columns.caption is None else self._complete(table, columns.caption)
        self.labels = None if columns.label is None else self._complete(table, columns.label)
        self.class_names = columns.class_names()
        self._folder = folder
        self._chunks = table.column(columns.image).chunks
        self._ends = list(accumulate(len(chunk) for chunk in self._chunks))

    def read(self, row: int) -> bytes:
        place = bisect_right(self._ends, row)
        chunk = self._chunks[place]
        cell = chunk[row - self._ends[place] + len(chunk)].as_py()
        if isinstance(cell, dict):
            if cell.get("bytes") is None and cell.get("path"):
                return self._read_path(cell["path"])
            cell = cell.get("bytes")
        if cell is None:
            raise ImageError("the cell is empty")
        return cell

    def _read_path(self, path: str) -> bytes:
        try:
            return (self._folder / path).read_bytes()
        except OSError as error:
            raise ImageError(f"the cell points to {path}: {error.strerror}") from None

    def _complete(self, table: "pa.Table", name: str) -> list:
        column = table.column(name)
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise ValueError(
                f"{self.location} has {column.null_count} empty cells in column {name!r}, the first in row {row}; "
                "fill them, or name another column or null in its place (data.caption_column, data.label_column)."
            )
        return column.to_pylist()


def _is_image(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
