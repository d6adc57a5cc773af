"""Writing the files of a token cache so that an interrupted build can never be taken for a finished one."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RECORD = "cache.json"
# stored type -> what numpy reads and writes; numpy has no bfloat16, so its bits travel as uint16
STORED = {
    "uint16": np.uint16,
    "uint32": np.uint32,
    "float16": np.float16,
    "bfloat16": np.uint16,
    "float32": np.float32,
}
FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

ArraySpec = tuple[Sequence[int], str]  # shape of one example, stored type


def write_cache(
    folder: Path,
    record: Mapping[str, Any],
    arrays: Mapping[str, ArraySpec],
    num_examples: int,
    batches: Callable[[], Iterable[Mapping[str, Tensor]]],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Computes and writes a cache unless another process just did; arguments as in `TokenCache.open_or_build`."""
    for name, (_, kind) in arrays.items():
        if kind not in STORED:
            raise ValueError(f"{name} cannot be stored as {kind!r}; use one of {', '.join(STORED)}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    partial = folder.with_name(f".{folder.name}.partial")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # released by the system even when the process is killed
        if not (folder / RECORD).is_file():
            shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
            try:
                partial.mkdir()
                _write_arrays(partial, arrays, num_examples, batches(), progress)
                (partial / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
                if folder.exists():  # without a record: nothing of ours
                    raise ValueError(f"{folder} exists and is no token cache; remove it or choose another folder.")
                os.replace(partial, folder)
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror} while writing a token cache", str(folder)) from error
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        lock.unlink(missing_ok=True)  # whoever waits for it now finds the finished cache


def _write_arrays(
    folder: Path,
    arrays: Mapping[str, ArraySpec],
    num_examples: int,
    batches: Iterable[Mapping[str, Tensor]],
    progress: Callable[[int, int], None] | None,
) -> None:
    needed = sum(
        num_examples * int(np.prod(shape)) * np.dtype(STORED[kind]).itemsize for shape, kind in arrays.values()
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the token cache {folder.parent} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free."
        )
    done = 0
    with ExitStack() as stack:
        # written, not memory-mapped: a full disk is then an error to report instead of a bus error
        streams = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in arrays}
        for batch in batches:
            sizes = {len(batch[name]) for name in arrays}
            if len(sizes) != 1:
                raise ValueError(f"the arrays of one batch have {sorted(sizes)} examples; they must be the same.")
            for name, (shape, kind) in arrays.items():
                streams[name].write(_stored(name, batch[name], tuple(shape), kind).tobytes())
            done += sizes.pop()
            if progress is not None:
                progress(done, num_examples)
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())
    if done != num_examples:
        raise ValueError(f"the batches hold {done} examples where {num_examples} belong.")


def _stored(name: str, values: Tensor, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Values as they are written.

    Raises:
        ValueError: another shape, or values that the stored type cannot hold.
    """
    values = values.detach().cpu()
    if tuple(values.shape[1:]) != shape:
        raise ValueError(f"{name} of one example has shape {tuple(values.shape[1:])} where {shape} belongs.")
    if kind in FLOATS:
        stored = values.to(FLOATS[kind])
        if not bool(stored.isfinite().all()):
            largest = values.abs().max().item()
            raise ValueError(f"{name} reach {largest:g}, which {kind} cannot hold; store them as bfloat16 or float32.")
        return (stored.view(torch.int16) if kind == "bfloat16" else stored).contiguous().numpy()
    low, high = values.min().item(), values.max().item()
    if low < 0 or high > np.iinfo(STORED[kind]).max:
        raise ValueError(f"{name} lie in {low}..{high}, which {kind} cannot hold; use uint32 above 65536 codes.")
    return values.numpy().astype(STORED[kind])
