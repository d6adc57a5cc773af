"""Image loading: JPEG shards and folders against webdataset, and the id cache against one .npy file an image."""

import io
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import numpy as np
import simplejpeg
import torch
from compare import Benchmark
from torch import Tensor

from tessella.data import encoded_images
from tessella.data.cache import TokenCache
from tessella.data.folder import Folder
from tessella.data.images import decode
from tessella.data.webdataset import WebDataset

PEER, PIL, FLOATS = "webdataset", "webdataset decode('pil')", "webdataset decode('torchrgb')"
OURS, OURS_FOLDER = "tessella WebDataset, random order", "tessella Folder, random order"
NPY, CACHE = "one .npy an image", "tessella TokenCache"
BATCH = 64


def main() -> int:
    bench = Benchmark(
        "images", "Image loading and id cache", ("tessella", "torch", "numpy", "webdataset", "pillow", "simplejpeg")
    )
    wds = bench.peer("webdataset", "webdataset")
    count, size = (24, 64) if bench.quick else (1000, 256)
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(count, size)
        write_photos(Path(folder), photos)
        mean = sum(map(len, photos)) / count / 1000
        print(f"{count} JPEG of {size} x {size} pixels, {mean:.1f} kB each, in the page cache")
        # Nothing stays in memory, as of a large data set: the peer keeps nothing either.
        with mock.patch.object(encoded_images, "KEPT_BYTES", 0):
            load_images(bench, wds, Path(folder), photos, size)
        read_ids(bench, Path(folder), num_images=200 if bench.quick else 10000)
    return bench.finish()


def make_photos(count: int, size: int) -> list[bytes]:
    """JPEG files of noise whose spectrum falls like that of photographs."""
    generator = torch.Generator().manual_seed(0)
    frequency = torch.fft.fftfreq(size)[:, None].square() + torch.fft.rfftfreq(size).square()
    falloff = frequency.clamp_min(1 / size**2).pow(-0.775)  # 20 kB at 256 pixels
    photos = []
    for _ in range(count):
        noise = torch.fft.irfft2(
            torch.fft.rfft2(torch.randn(3, size, size, generator=generator)) * falloff, s=(size, size)
        )
        grey, tint = noise[:1] / noise[:1].std(), noise / noise.std()
        pixels = ((grey + 0.3 * tint) * 50 + 127).clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
        photos.append(simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling="420"))
    return photos


def write_photos(folder: Path, photos: list[bytes]) -> None:
    (folder / "files").mkdir()
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number, photo in enumerate(photos):
            (folder / "files" / f"{number:05}.jpg").write_bytes(photo)
            member = tarfile.TarInfo(f"{number:05}.jpg")
            member.size = len(photo)
            tar.addfile(member, io.BytesIO(photo))


def load_images(bench: Benchmark, wds, folder: Path, photos: list[bytes], size: int) -> None:
    shard = WebDataset(train=str(folder / "shard.tar"), val_fraction=0, test_fraction=0)
    files = Folder(train=str(folder / "files"), captions="none", val_fraction=0, test_fraction=0)
    sources = {OURS: shard, OURS_FOLDER: files}
    for source in sources.values():
        source.split("train", size)  # indexes and headers are read once per start, not once per pass
    order = np.random.default_rng(0).permutation(len(photos)).tolist()

    def stream(image: str):
        shards = [str(folder / "shard.tar")]
        return wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode(image).to_tuple("jpg")

    singles: dict[str, Callable[[], int]] = {}
    batches: dict[str, Callable[[], int]] = {}
    if wds is not None:
        singles[PIL] = lambda: passed(stream("pil"))
        singles["webdataset decode('torchrgb8')"] = lambda: passed(stream("torchrgb8"))
        batches[FLOATS] = lambda: passed(stream("torchrgb").batched(BATCH))
    for name, source in sources.items():
        singles[name] = lambda source=source: passed(map(source.split("train", size).__getitem__, order))
        batches[name] = lambda source=source: passed(map(source.split("train", size).batch, chunks(order, BATCH)))
    records = shard.open(str(folder / "shard.tar"), "train")
    singles["decoding alone"] = lambda: passed(map(decode, photos))
    singles["reading alone, random order"] = lambda: passed(map(records.read, order))

    count = len(photos)
    rows = bench.race("images as uint8, one by one", singles, work=count, unit="images", rounds=5)
    for name in sources:
        bench.goal(f"{name} over {PIL}", bench.ratio(rows, name, PIL), at_least=1.6)
    overhead = bench.ratio(rows, "reading alone, random order", "decoding alone")
    assert overhead is not None
    bench.goal("reading alone, as a part of decoding", 100 / overhead, at_most=10, unit="%")
    if wds is not None:
        theirs = [np.asarray(image) for (image,) in stream("pil")]
        for name, source in sources.items():
            dataset = source.split("train", size)
            ours = [dataset[index].image.permute(1, 2, 0).numpy() for index in range(count)]
            worst = max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(ours, theirs, strict=True))
            bench.check(f"pixels of {name} and {PEER}", worst <= 2, f"largest difference {worst} of 255")
    rows = bench.race(f"float batches of {BATCH} in [0, 1]", batches, work=count, unit="images", rounds=5)
    for name in sources:
        bench.goal(f"{name} over {FLOATS}", bench.ratio(rows, name, FLOATS), at_least=1.6)


def passed(items: Iterable[object]) -> int:
    """Run through everything and keep nothing."""
    return sum(1 for _ in items)


def chunks(order: list[int], length: int) -> list[list[int]]:
    return [order[first : first + length] for first in range(0, len(order), length)]


def read_ids(bench: Benchmark, folder: Path, num_images: int) -> None:
    """Shuffled batches of ids, from the cache and from files of int64, the layout of published training code."""
    ids = torch.randint(16384, (num_images, 256), generator=torch.Generator().manual_seed(0))
    (folder / "ids").mkdir()
    for number, row in enumerate(ids.numpy()):
        np.save(folder / "ids" / f"{number}.npy", row)
    cache = TokenCache.open_or_build(
        folder / "cache", {"data": "random"}, {"ids": ((256,), "uint16")}, num_images, lambda: [{"ids": ids}]
    )
    batches = chunks(np.random.default_rng(0).permutation(num_images).tolist(), 256)

    def files(batch: list[int]) -> Tensor:
        return torch.from_numpy(np.stack([np.load(folder / "ids" / f"{number}.npy") for number in batch]))

    contenders = {NPY: lambda: passed(map(files, batches)), CACHE: lambda: passed(map(cache.ids, batches))}
    title = f"ids of {num_images} images of 256, in shuffled batches of 256"
    rows = bench.race(title, contenders, work=ids.numel(), unit="ids", rounds=5)
    bench.goal(f"{CACHE} over {NPY}", bench.ratio(rows, CACHE, NPY), at_least=100)
    equal = all(torch.equal(files(batch), cache.ids(batch)) for batch in batches[:4])
    bench.check(f"ids of {CACHE} and {NPY}", equal, "the first 4 batches")


if __name__ == "__main__":
    sys.exit(main())
