"""The token cache: what is read is what was computed, under the key it was computed for, or nothing at all."""

import errno
import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from tessella.data import cache_files
from tessella.data.cache import StaleCacheError, TokenCache

KEY = {"weights": "w1", "preparation": "center 64", "data": "d1"}
ARRAYS = {"ids": ((6,), "uint16"), "features": ((2, 3), "float16")}


def content(num_examples: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1 << 16, (num_examples, 6), generator=generator)
    return ids, torch.randn(num_examples, 2, 3, generator=generator)


def batches(num_examples: int = 10, size: int = 4):
    ids, features = content(num_examples)
    for start in range(0, num_examples, size):
        yield {"ids": ids[start : start + size], "features": features[start : start + size]}


def unwanted():
    raise AssertionError("computed again")


@pytest.fixture
def built(tmp_path):
    return TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, batches)


def test_any_rows_come_back_in_the_order_asked_for(built):
    ids, features = content()
    for rows in ([3], [9, 0, 5], [2, 2, 2], list(range(10)), list(reversed(range(10))), []):
        assert torch.equal(built.ids(rows), ids[rows])
        assert torch.equal(built.features(torch.tensor(rows, dtype=torch.int64)), features[rows].half().float())
    assert built.ids([0]).dtype == torch.int64
    assert built.features([0]).dtype == torch.float32
    assert len(built) == 10


def test_a_finished_cache_is_opened_and_not_computed_again(built, tmp_path):
    again = TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, unwanted)
    assert torch.equal(again.ids(range(10)), content()[0])
    assert again.key == built.key == TokenCache.open(tmp_path / "tokens", KEY).key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens"]
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == ["cache.json", "features.bin", "ids.bin"]


@pytest.mark.parametrize("part", KEY)
def test_another_key_is_refused_and_the_difference_named(built, tmp_path, part):
    other = {**KEY, part: "other"}
    message = f"{part} is {KEY[part]}, needed is other"
    with pytest.raises(StaleCacheError, match=message):
        TokenCache.open(tmp_path / "tokens", other)
    with pytest.raises(StaleCacheError, match=message):
        TokenCache.open_or_build(tmp_path / "tokens", other, ARRAYS, 10, unwanted)


def test_parts_that_are_missing_or_new_are_named(built, tmp_path):
    with pytest.raises(StaleCacheError, match="data is d1, needed is absent"):
        TokenCache.open(tmp_path / "tokens", {"weights": "w1", "preparation": "center 64"})
    with pytest.raises(StaleCacheError, match="kind is absent, needed is ids"):
        TokenCache.open(tmp_path / "tokens", {**KEY, "kind": "ids"})


def test_other_shapes_numbers_and_versions_are_refused(built, tmp_path):
    with pytest.raises(StaleCacheError, match=r"ids is \[\[6\], 'uint16'\], needed is \[\[7\], 'uint16'\]"):
        TokenCache.open_or_build(tmp_path / "tokens", KEY, {**ARRAYS, "ids": ((7,), "uint16")}, 10, unwanted)
    with pytest.raises(StaleCacheError, match="num_examples is 10, needed is 11"):
        TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 11, unwanted)
    record = tmp_path / "tokens" / "cache.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": 0}))
    with pytest.raises(StaleCacheError, match="version is 0, needed is 1"):
        TokenCache.open(tmp_path / "tokens", KEY)


def test_a_shortened_file_is_refused(built, tmp_path):
    file = tmp_path / "tokens" / "features.bin"
    os.truncate(file, 100)
    with pytest.raises(StaleCacheError, match="has 100 bytes of 120; delete"):
        TokenCache.open(tmp_path / "tokens", KEY)
    file.unlink()
    with pytest.raises(StaleCacheError, match="has 0 bytes of 120"):
        TokenCache.open(tmp_path / "tokens", KEY)


def test_there_is_nothing_to_open_before_it_is_built(tmp_path):
    with pytest.raises(FileNotFoundError, match="no token cache in"):
        TokenCache.open(tmp_path / "tokens", KEY)


def test_an_interrupted_build_leaves_no_cache(tmp_path):
    def interrupted():
        yield next(iter(batches()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, interrupted)
    assert not (tmp_path / "tokens").exists()
    assert not list(tmp_path.glob(".*.partial"))
    rebuilt = TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, batches)
    assert torch.equal(rebuilt.ids(range(10)), content()[0])


def build_slowly(folder, started):
    def slow():
        for number, batch in enumerate(batches()):
            if number == 1:
                started.set()
                time.sleep(30)
            yield batch

    TokenCache.open_or_build(folder, KEY, ARRAYS, 10, slow)


def test_a_killed_build_leaves_no_cache_and_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    worker = context.Process(target=build_slowly, args=(tmp_path / "tokens", started))
    worker.start()
    assert started.wait(20)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert (tmp_path / ".tokens.partial").exists()
    with pytest.raises(FileNotFoundError):
        TokenCache.open(tmp_path / "tokens", KEY)
    rebuilt = TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, batches)
    assert torch.equal(rebuilt.ids(range(10)), content()[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens"]


def build_and_count(folder, counted):
    def counting():
        counted.put(os.getpid())
        time.sleep(0.3)
        yield from batches()

    assert len(TokenCache.open_or_build(folder, KEY, ARRAYS, 10, counting)) == 10


def test_processes_that_ask_at_once_compute_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    counted = context.SimpleQueue()
    workers = [context.Process(target=build_and_count, args=(tmp_path / "tokens", counted)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    counted.get()
    assert counted.empty()


def test_progress_is_reported_after_each_batch(tmp_path):
    told = []
    TokenCache.open_or_build(tmp_path / "t", KEY, ARRAYS, 10, batches, lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_features_are_rounded_to_the_stored_type_and_no_further(tmp_path, kind):
    features = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1)) * 100
    cache = TokenCache.open_or_build(
        tmp_path / kind, KEY, {"features": ((2, 3), kind)}, 5, lambda: [{"features": features}]
    )
    assert torch.equal(cache.features(range(5)), features.to(getattr(torch, kind)).float())


def test_features_beyond_float16_are_refused_and_fit_bfloat16(tmp_path):
    large = torch.full((5, 2, 3), 7e4)
    with pytest.raises(ValueError, match="features reach 70000, which float16 cannot hold; store them as bfloat16"):
        TokenCache.open_or_build(
            tmp_path / "a", KEY, {"features": ((2, 3), "float16")}, 5, lambda: [{"features": large}]
        )
    cache = TokenCache.open_or_build(
        tmp_path / "b", KEY, {"features": ((2, 3), "bfloat16")}, 5, lambda: [{"features": large}]
    )
    assert torch.equal(cache.features([0]), large[:1].bfloat16().float())


def test_ids_above_65535_need_uint32(tmp_path):
    ids = torch.tensor([[0, 65536], [1, 100_000]])
    with pytest.raises(ValueError, match=r"ids lie in 0..100000, which uint16 cannot hold; use uint32"):
        TokenCache.open_or_build(tmp_path / "a", KEY, {"ids": ((2,), "uint16")}, 2, lambda: [{"ids": ids}])
    cache = TokenCache.open_or_build(tmp_path / "b", KEY, {"ids": ((2,), "uint32")}, 2, lambda: [{"ids": ids}])
    assert torch.equal(cache.ids([1, 0]), ids[[1, 0]])
    with pytest.raises(ValueError, match="ids lie in -100001"):
        TokenCache.open_or_build(tmp_path / "c", KEY, {"ids": ((2,), "uint16")}, 2, lambda: [{"ids": -1 - ids}])


def test_ids_of_the_wrong_shape_or_number_are_refused(tmp_path):
    wrong_shape = {"ids": torch.zeros(10, 5, dtype=torch.int64), "features": torch.zeros(10, 2, 3)}
    with pytest.raises(ValueError, match=r"ids of one example has shape \(5,\) where \(6,\) belongs"):
        TokenCache.open_or_build(tmp_path / "a", KEY, ARRAYS, 10, lambda: [wrong_shape])
    uneven = {"ids": torch.zeros(10, 6, dtype=torch.int64), "features": torch.zeros(9, 2, 3)}
    with pytest.raises(ValueError, match=r"one batch have \[9, 10\] examples"):
        TokenCache.open_or_build(tmp_path / "b", KEY, ARRAYS, 10, lambda: [uneven])
    with pytest.raises(ValueError, match="the batches hold 10 examples where 11 belong"):
        TokenCache.open_or_build(tmp_path / "c", KEY, ARRAYS, 11, batches)
    with pytest.raises(ValueError, match="ids cannot be stored as 'int8'; use one of uint16"):
        TokenCache.open_or_build(tmp_path / "d", KEY, {"ids": ((6,), "int8")}, 10, batches)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_rows_outside_and_arrays_not_there_are_refused(tmp_path, built):
    for rows in ([10], [-1], [0, 12]):
        with pytest.raises(IndexError, match="outside the 10"):
            built.ids(rows)
    only_ids = TokenCache.open_or_build(
        tmp_path / "ids", KEY, {"ids": ((6,), "uint16")}, 10, lambda: ({"ids": batch["ids"]} for batch in batches())
    )
    with pytest.raises(ValueError, match="has no features; it has ids"):
        only_ids.features([0])


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(cache_files.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"needs 0\.0 GB and 0\.0 GB are free"):
        TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, batches)
    monkeypatch.undo()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device while writing a token cache: '.*tokens'"):
        TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, batches)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tokens.lock"]


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is no token cache"):
        TokenCache.open_or_build(tmp_path / "tokens", KEY, ARRAYS, 10, batches)
    assert (tmp_path / "tokens" / "thesis.txt").read_text() == "years of work"


def test_files_hold_the_raw_rows(built, tmp_path):
    """The format is one numpy call away from any other program."""
    raw = np.fromfile(tmp_path / "tokens" / "ids.bin", dtype="<u2").reshape(10, 6)
    assert np.array_equal(raw, content()[0].numpy())
