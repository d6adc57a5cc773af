"""Tar shards: members to samples, the kept index, and tars that are broken."""

import gzip
import io
import json
import tarfile

import pytest

from tessella.data import tar_index
from tessella.data.webdataset import WebDataset

from .image_files import COLORS, fill_shards, fill_tar, png, shown


def samples(count: int, **more: bytes) -> dict[str, bytes]:
    return {
        f"{number}.{suffix}": content
        for number in range(count)
        for suffix, content in {"png": png(number), **more}.items()
    }


def test_json_labels_and_captions(tmp_path):
    members = {}
    for number in range(20):
        said = {"label": COLORS[number % 5], "caption": "from json"}
        members |= {
            f"in/{number}.v1.png": b"other",
            f"in/{number}.png": png(number),
            f"in/{number}.json": json.dumps(said).encode(),
        }
    members["in/3.txt"] = b"from txt\n"
    fill_tar(tmp_path / "a.tar", members)
    dataset = WebDataset(train=str(tmp_path / "a.tar"), val_fraction=0, test_fraction=0).split("train", 32)
    assert dataset.class_names == tuple(sorted(COLORS))
    assert [dataset[number].caption for number in (2, 3)] == ["from json", "from txt"]
    assert dataset.class_names[dataset[7].label] == COLORS[2]
    assert dataset[7].key == "a/in/7"


def test_folders_and_hidden_files_are_no_samples(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("pictures", tarfile.DIRTYPE), ("pictures/.hidden", tarfile.REGTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            tar.addfile(entry)
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        entry = tarfile.TarInfo("pictures/0.png")
        entry.size = len(png(0))
        tar.addfile(entry, io.BytesIO(png(0)))
    index = tar_index.build_index(tmp_path / "a.tar")
    assert index.keys == ["pictures/0"]
    assert (tmp_path / "a.tar").read_bytes()[index.offsets[0] :][: index.sizes[0]] == png(0)


def test_samples_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        fill_tar(tmp_path / folder / "a.tar", samples(3))
    listed = [str(tmp_path / folder / "a.tar") for folder in ("one", "two")]
    with pytest.raises(ValueError, match=r"two examples in .* are called a/0; every example needs its own name"):
        WebDataset(train=listed).split("train", 32)


def test_cls_labels_are_numbers(tmp_path):
    fill_tar(tmp_path / "a.tar", samples(20, cls=b"3"))
    dataset = WebDataset(train=str(tmp_path)).split("train", 32)
    assert dataset.batch([0, 1]).labels.tolist() == [3, 3]
    assert (dataset.class_names, dataset.has_captions) == (None, False)


def test_ranges_name_shards(tmp_path):
    fill_shards(tmp_path, 40, shards=12)
    source = WebDataset(train=str(tmp_path / "shard-{00..09}.tar"), test=str(tmp_path / "shard-{10..11}.tar"))
    assert source.name == "webdataset/shard"
    assert len(source.split("test", 32)) == 6
    with pytest.raises(ValueError, match=r"data\.train=.*shard-12\.tar does not exist"):
        WebDataset(train=str(tmp_path / "shard-{10..12}.tar")).split("train", 32)


def test_a_sample_without_an_image_is_a_file_that_cannot_be_used(tmp_path):
    fill_tar(tmp_path / "a.tar", {**samples(200, txt=b"words"), "x.txt": b"only words"})
    dataset = WebDataset(train=str(tmp_path / "a.tar"), val_fraction=0, test_fraction=0).split("train", 32)
    assert len(dataset) == 200
    assert dataset.skipped == [("a/x", "the sample has no image (.jpg, .jpeg, .png, .webp)")]


def test_a_kept_index_is_used_for_the_same_file_only(tmp_path, monkeypatch):
    fill_shards(tmp_path / "data", 40)

    def source():
        return WebDataset(train=str(tmp_path / "data"), cache_folder=str(tmp_path / "kept"))

    before = source().split("train", 32)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    built = []
    monkeypatch.setattr(
        tar_index, "build_index", lambda shard, real=tar_index.build_index: built.append(shard.name) or real(shard)
    )
    again = source().split("train", 32)
    assert built == []
    assert again.fingerprint == before.fingerprint
    assert shown(again) == shown(before)
    fill_tar(tmp_path / "data" / "shard-01.tar", samples(20, txt=b"words"))
    source().split("train", 32)
    assert built == ["shard-01.tar"]


def broken_tar(path, kind: str) -> None:
    fill_tar(path, samples(20))
    content = bytearray(path.read_bytes())
    if kind == "text":
        content = bytearray(b"this is no tar at all, but some text" * 40)
    elif kind == "cut in an image":
        del content[5000:]
    elif kind == "damaged header":
        second = content.index(b"1.png")
        content[second : second + 100] = b"\xff" * 100
    elif kind == "compressed":
        content = bytearray(gzip.compress(bytes(content)))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", r"broken tar .*a\.tar: "),
        ("cut in an image", r"broken tar .*a\.tar: unexpected end of data"),
        ("damaged header", r"broken tar .*a\.tar: damaged header at byte "),
        ("compressed", r"a\.tar is compressed, which allows no random access; decompress it first"),
    ],
)
def test_a_broken_tar_is_one_clear_error(tmp_path, kind, message):
    broken_tar(tmp_path / "a.tar", kind)
    with pytest.raises(ValueError, match=message):
        WebDataset(train=str(tmp_path / "a.tar")).split("train", 32)


def test_shards_that_cannot_be_used(tmp_path):
    def refused(members: dict[str, bytes] | list, message: str) -> None:
        path = tmp_path / "a.tar"
        path.unlink(missing_ok=True)
        if isinstance(members, dict):
            fill_tar(path, members)
        else:
            with tarfile.open(path, "w") as tar:
                for name in members:
                    tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(ValueError, match=message):
            WebDataset(train=str(tmp_path)).split("train", 32)

    refused({"a.txt": b"words"}, r"holds no images \(members ending in jpg")
    refused(["a.png", "a.png"], "has two members a.png")
    refused({**samples(3), "0.cls": b"three"}, "sample 0 of .* has unreadable text: ")
    refused({**samples(3), "0.json": b"["}, "sample 0 of .* has unreadable text: ")
    refused({**samples(3), "0.txt": b"words"}, "2 of 3 samples in .* have no caption, such as a/1, a/2")
    (tmp_path / "a.tar").unlink()
    with pytest.raises(ValueError, match=r"no \.tar shards in .* \(data\.train\)"):
        WebDataset(train=str(tmp_path)).split("train", 32)
