"""Local parquet files in the Hugging Face layout."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .arrow_table import ArrowRecords, Columns
from .encoded_source import EncodedSource
from .locations import expand
from .records import Records, content_identity

if TYPE_CHECKING:
    import pyarrow as pa

IN_MEMORY_BYTES = 1 << 30  # parquet has no random access; up to here the columns are simply held in memory


@dataclass(kw_only=True, eq=False)
class Parquet(EncodedSource):
    """Parquet files with an image column, and optionally captions and labels.

    Args:
        image_column, caption_column, label_column: a column's name, or "auto" to find it by type and usual name;
            None for a caption or label column means that there is none.
        cache_folder: where files above 1 GB in all are unpacked once to be read at random; needed only for those.
    """

    image_column: str = "auto"
    caption_column: str | None = "auto"
    label_column: str | None = "auto"
    cache_folder: str | None = None

    def open(self, where: str | Sequence[str], config_key: str) -> Records:
        _require_pyarrow()
        files: dict[Path, str] = {}
        for anchor, path in expand(where, config_key):
            inside = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
            if not inside:
                raise ValueError(f"no .parquet files in {path} ({config_key}).")
            for file in inside:
                files.setdefault(file, file.relative_to(anchor).as_posix())
        paths = list(files)
        schemas = [_schema(path) for path in paths]
        columns = [
            Columns(schema, str(path), self.image_column, self.caption_column, self.label_column)
            for path, (schema, _) in zip(paths, schemas, strict=True)
        ]
        for path, other in zip(paths, columns, strict=True):
            if other.all != columns[0].all:
                raise ValueError(
                    f"{path} has columns {', '.join(other.all)} where {paths[0]} has {', '.join(columns[0].all)}; "
                    f"files of one split must agree ({config_key})."
                )
        return ArrowRecords(
            table=self._table(paths, columns[0].all),
            columns=columns[0],
            location=str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else ""),
            files=paths,
            identity=content_identity((name, path) for path, name in files.items()),
            prefixes=[
                (name.removesuffix(".parquet"), rows) for name, (_, rows) in zip(files.values(), schemas, strict=True)
            ],
            folder=paths[0].parent,
        )

    def _table(self, paths: Sequence[Path], columns: list[str]) -> "pa.Table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        size = sum(path.stat().st_size for path in paths)
        if size <= IN_MEMORY_BYTES:
            tables = [pq.read_table(path, columns=columns) for path in paths]
            return pa.concat_tables([table.replace_schema_metadata() for table in tables])
        if self.cache_folder is None:
            raise ValueError(
                f"{len(paths)} parquet files of {size / 1e9:.1f} GB have to be unpacked to be read at random; "
                "name a folder with as much free space (data.cache_folder)."
            )
        unpacked = unpack(paths, columns, Path(self.cache_folder).expanduser())
        return pa.ipc.open_file(pa.memory_map(str(unpacked))).read_all()


def unpack(paths: Sequence[Path], columns: list[str], folder: Path) -> Path:
    """Writes the columns as one uncompressed Arrow file that can be memory-mapped, unless it is there already."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    unpacked = folder / f"{paths[0].stem}-{hashlib.sha256(repr((stats, columns)).encode()).hexdigest()[:16]}.arrow"
    if unpacked.is_file():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    partial = unpacked.with_suffix(f".{os.getpid()}.partial")
    try:
        schema = pa.schema([pq.read_schema(paths[0]).field(name) for name in columns])
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for path in paths:
                for rows in pq.ParquetFile(path).iter_batches(batch_size=256, columns=columns):
                    writer.write_batch(pa.record_batch(rows.select(columns).columns, schema=schema))
        os.replace(partial, unpacked)
    finally:
        partial.unlink(missing_ok=True)
    return unpacked


def _schema(path: Path) -> "tuple[pa.Schema, int]":
    """Schema and number of rows, from the end of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from None
    if file.metadata.num_rows == 0:
        raise ValueError(f"{path} has no rows.")
    return file.schema_arrow, file.metadata.num_rows


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ValueError("data=parquet needs the package pyarrow; run pip install 'tessella[data]'.") from None
