"""Parquet files and hub data sets: columns, class names, random access."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tessella.data import parquet
from tessella.data.hugging_face import HuggingFace
from tessella.data.parquet import Parquet

from .image_files import COLORS, caption, fill_folder, fill_parquet, number_of, png, shown, use_hub


def test_rows_keep_their_order_over_row_groups_and_files(tmp_path):
    fill_parquet(tmp_path / "data" / "a.parquet", range(20))
    fill_parquet(tmp_path / "data" / "b.parquet", range(20, 33))
    dataset = Parquet(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    assert shown(dataset) == list(range(33))
    assert (dataset[0].key, dataset[32].key) == ("a/0", "b/12")
    assert dataset[32].caption == caption(32)


def test_class_names_come_from_the_metadata(tmp_path):
    features = {"label": {"names": list(COLORS), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    fill_parquet(tmp_path / "a.parquet", range(20), metadata, label=[number % 5 for number in range(20)])
    dataset = Parquet(train=str(tmp_path / "a.parquet"), val_fraction=0, test_fraction=0).split("train", 32)
    assert dataset.class_names == COLORS
    assert (dataset[7].label, dataset[7].caption) == (2, "a photo of a blue")
    without = Parquet(train=str(tmp_path / "a.parquet"), label_column=None).split("train", 32)
    assert (without.class_names, without.has_captions) == (None, False)
    fill_parquet(tmp_path / "b.parquet", range(3), metadata, label=[0, 1, 5])
    with pytest.raises(ValueError, match=r"b/2 in .* has label 5, which is none of the 5 classes red, green"):
        Parquet(train=str(tmp_path / "b.parquet")).split("train", 32)
    other = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["x"], "_type": "ClassLabel"}}}})}
    fill_parquet(tmp_path / "c.parquet", range(3), other, label=[0, 0, 0])
    with pytest.raises(ValueError, match="the splits name their classes differently"):
        Parquet(train=str(tmp_path / "a.parquet"), test=str(tmp_path / "c.parquet")).split("train", 32)


def test_integer_labels_without_names_stay_numbers(tmp_path):
    fill_parquet(tmp_path / "a.parquet", range(20), label=list(range(20)), caption=[caption(n) for n in range(20)])
    dataset = Parquet(train=str(tmp_path / "a.parquet"), val_fraction=0, test_fraction=0).split("train", 32)
    assert dataset.class_names is None
    assert dataset.batch([3, 1]).labels.tolist() == [3, 1]
    assert dataset[3].caption == caption(3)


def test_text_labels_become_classes(tmp_path):
    fill_parquet(tmp_path / "a.parquet", range(20), kind=[COLORS[number % 5] for number in range(20)])
    dataset = Parquet(train=str(tmp_path / "a.parquet"), label_column="kind").split("train", 32)
    assert dataset.class_names == tuple(sorted(COLORS))


def test_columns_are_taken_as_named(tmp_path):
    table = {
        "before": [png(number) for number in range(20)],
        "after": [png(number + 100) for number in range(20)],
        "alt": [caption(number + 100) for number in range(20)],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    named = Parquet(train=str(tmp_path / "a.parquet"), image_column="after", caption_column="alt").split("train", 32)
    assert number_of(named[0].image) >= 100
    assert named[0].caption == caption(number_of(named[0].image))
    with pytest.raises(
        ValueError,
        match=r"no column that is clearly the image \(before after\); it has before, after, alt \(data\.image_column",
    ):
        Parquet(train=str(tmp_path / "a.parquet")).split("train", 32)


def test_a_single_column_of_bytes_is_the_image(tmp_path):
    pq.write_table(pa.table({"content": [png(number) for number in range(20)]}), tmp_path / "a.parquet")
    dataset = Parquet(train=str(tmp_path / "a.parquet"), val_fraction=0, test_fraction=0).split("train", 32)
    assert shown(dataset) == list(range(20))


def test_cells_may_point_to_files_and_empty_ones_cannot_be_used(tmp_path):
    fill_folder(tmp_path / "pictures", 200)
    cells = [{"bytes": None, "path": f"pictures/{number:03}.png"} for number in range(200)]
    cells[3] = {"bytes": None, "path": None}
    cells[4] = {"bytes": None, "path": "pictures/no.png"}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(cells, kind)}), tmp_path / "a.parquet")
    dataset = Parquet(train=str(tmp_path / "a.parquet"), val_fraction=0, test_fraction=0).split("train", 32)
    assert shown(dataset) == [0, 1, 2, *range(5, 200)]
    assert dataset.skipped == [
        ("a/3", "the cell is empty"),
        ("a/4", "the cell points to pictures/no.png: No such file or directory"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"image_column": "img"},
            r"a\.parquet has no column 'img'; it has image, caption, label \(data\.image_column\)",
        ),
        ({"caption_column": "alt"}, r"no column 'alt'; it has image, caption, label \(data\.caption_column\)"),
        ({"label_column": "class"}, r"no column 'class'; .*\(data\.label_column\)"),
        ({"caption_column": "label"}, r"column 'label' of type int64, which is not text"),
        ({"image_column": "caption"}, r"column 'caption' of type string, which is not struct\{bytes, path\} or binary"),
    ],
)
def test_missing_and_unfit_columns_are_named(tmp_path, arguments, message):
    fill_parquet(tmp_path / "a.parquet", range(3), caption=["a", "b", "c"], label=[0, 1, 2])
    with pytest.raises(ValueError, match=message):
        Parquet(train=str(tmp_path / "a.parquet"), **arguments).split("train", 32)


def test_parquet_files_that_cannot_be_used(tmp_path):
    def refused(message: str, name: str = "a.parquet", **arguments) -> None:
        with pytest.raises(ValueError, match=message):
            Parquet(train=str(tmp_path / name), **arguments).split("train", 32)

    (tmp_path / "text.parquet").write_text("hello, this is text")
    refused(r"text\.parquet is not a readable parquet file", "text.parquet")
    fill_parquet(tmp_path / "none.parquet", [], caption=pa.array([], pa.string()), image=pa.array([], pa.binary()))
    refused(r"none\.parquet has no rows", "none.parquet")
    (tmp_path / "folder").mkdir()
    refused(r"no \.parquet files in .*folder \(data\.train\)", "folder")
    fill_parquet(tmp_path / "a.parquet", range(3), caption=["a", None, "c"])
    refused(r"1 empty cells in column 'caption', the first in row 1")
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "words.parquet")
    refused(r"no column that is clearly the image \(none holds bytes\)", "words.parquet")
    fill_parquet(tmp_path / "folder" / "a.parquet", range(3))
    fill_parquet(tmp_path / "folder" / "b.parquet", range(3), words=["a", "b", "c"])
    refused(
        r"b\.parquet has columns image where .*a\.parquet has image, caption; files of one split must agree", "folder"
    )


def test_large_files_are_unpacked_once_and_read_the_same(tmp_path, monkeypatch):
    fill_parquet(tmp_path / "data" / "a.parquet", range(20))
    fill_parquet(tmp_path / "data" / "b.parquet", range(20, 40))
    whole = Parquet(train=str(tmp_path / "data")).split("train", 32)
    monkeypatch.setattr(parquet, "IN_MEMORY_BYTES", 100)
    with pytest.raises(ValueError, match=r"2 parquet files of 0\.0 GB have to be unpacked .* \(data\.cache_folder\)"):
        Parquet(train=str(tmp_path / "data")).split("train", 32)

    def source():
        return Parquet(train=str(tmp_path / "data"), cache_folder=str(tmp_path / "unpacked"))

    mapped = source().split("train", 32)
    assert shown(mapped) == shown(whole)
    assert mapped.batch([0, 9]).captions == whole.batch([0, 9]).captions
    assert mapped.fingerprint == whole.fingerprint
    (file,) = (tmp_path / "unpacked").iterdir()
    before = file.stat().st_mtime_ns
    source().split("train", 32)
    assert file.stat().st_mtime_ns == before
    assert len(list((tmp_path / "unpacked").iterdir())) == 1


def test_parquet_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    fill_parquet(tmp_path / "a.parquet", range(3))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"data=parquet needs the package pyarrow; run pip install 'tessella\[data\]'"):
        Parquet(train=str(tmp_path / "a.parquet")).split("train", 32)


def test_hub_splits_and_class_names(tmp_path, monkeypatch):
    hub = use_hub(monkeypatch, tmp_path)
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=list(COLORS))})
    for name, numbers in (("train", range(20)), ("test", range(20, 26))):
        rows = {"image": [{"bytes": png(n), "path": None} for n in numbers], "label": [n % 5 for n in numbers]}
        hub.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / f"{name}.parquet")
    source = HuggingFace(dataset=str(tmp_path / "data"), test="test", val="train[:4]", train="train[4:]")
    assert [shown(source.split(name, 32)) for name in ("train", "val", "test")] == [
        list(range(4, 20)),
        list(range(4)),
        list(range(20, 26)),
    ]
    assert source.split("test", 32).class_names == COLORS
    assert source.split("test", 32)[0].caption == "a photo of a red"
    with pytest.raises(
        ValueError, match=r"data\.dataset=.* with data\.train=dev could not be loaded: .*Without the network"
    ):
        HuggingFace(dataset=str(tmp_path / "data"), train="dev").split("train", 32)
    with pytest.raises(ValueError, match="must be one split name"):
        HuggingFace(dataset=str(tmp_path / "data"), train=["train"]).split("train", 32)


def test_the_hub_without_its_package_or_the_network(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = HuggingFace(dataset="owner/pictures", subset="small")
    assert source.name == "hf/owner/pictures/small"
    with pytest.raises(ValueError, match=r"data=hf needs the package datasets; run pip install 'tessella\[data\]'"):
        source.split("train", 32)

    class Unreachable:
        @staticmethod
        def load_dataset(*arguments, **named):
            raise ConnectionError("Couldn't reach 'owner/pictures' on the Hub\nmore lines")

    monkeypatch.setitem(sys.modules, "datasets", Unreachable)
    with pytest.raises(
        ValueError,
        match=r"^data\.dataset=owner/pictures with data\.train=train could not be loaded: Couldn't reach "
        r"'owner/pictures' on the Hub\. Without the network give a local folder",
    ):
        source.split("train", 32)
