"""Image folders: what counts as an image, where captions come from, what a location may be."""

import json
import shutil

import pytest

from tessella.data.folder import Folder

from .image_files import COLORS, caption, fill_folder, number_of, png


@pytest.mark.parametrize("suffix", ["json", "list.json", "jsonl", "csv", "tsv"])
def test_captions_files_of_every_kind(tmp_path, suffix):
    fill_folder(tmp_path / "data", 20)
    (tmp_path / "data" / "captions.jsonl").unlink()
    rows = [(f"data/{number:03}.png", f'{caption(number)}, "quoted"') for number in range(20)]
    text = {
        "json": json.dumps(dict(rows)),
        "list.json": json.dumps([{"image": name, "caption": text} for name, text in rows]),
        "jsonl": "\n".join(json.dumps({"file": name, "prompt": text}) for name, text in rows) + "\n",
        "csv": "filename,caption\n"
        + "".join(f'{name},"{text.replace(chr(34), chr(34) * 2)}"\n' for name, text in rows),
        "tsv": "path\ttext\n" + "".join(f'{name}\t"{text.replace(chr(34), chr(34) * 2)}"\n' for name, text in rows),
    }[suffix]
    file = tmp_path / f"words.{suffix}"
    file.write_text(text)
    dataset = Folder(train=str(tmp_path / "data"), captions_file=str(file)).split("train", 32)
    assert all(
        example.caption == f'{caption(number_of(example.image))}, "quoted"'
        for example in (dataset[index] for index in range(len(dataset)))
    )


def test_sidecar_captions(tmp_path):
    fill_folder(tmp_path / "data", 20)
    (tmp_path / "data" / "captions.jsonl").unlink()
    for number in range(20):
        (tmp_path / "data" / f"{number:03}.txt").write_text(f"  {caption(number)}\n")
    example = Folder(train=str(tmp_path / "data")).split("train", 32)[3]
    assert example.caption == caption(number_of(example.image))
    (tmp_path / "data" / "007.txt").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 20 images have no caption in a \.txt file of the same name, such as 007"
    ):
        Folder(train=str(tmp_path / "data")).split("train", 32)


def test_class_folders_give_labels_and_captions(tmp_path):
    for number in range(30):
        folder = tmp_path / "data" / f"{COLORS[number % 5]}_thing" / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(number))
    source = Folder(train=str(tmp_path / "data"))
    dataset = source.split("train", 32)
    assert dataset.class_names == tuple(sorted(f"{color}_thing" for color in COLORS))
    batch = dataset.batch(range(len(dataset)))
    for index in range(len(dataset)):
        example = dataset[index]
        color = COLORS[number_of(example.image) % 5]
        assert example.caption == batch.captions[index] == f"a photo of a {color} thing"
        assert dataset.class_names[example.label] == f"{color}_thing"
        assert int(batch.labels[index]) == example.label
    plain = Folder(train=str(tmp_path / "data"), captions="none").split("train", 32)
    assert (plain.has_captions, plain.class_names, plain[0].caption, plain[0].label) == (False, None, None, None)
    assert plain.annotations([0, 1]) == (None, [(), ()])


def test_a_class_has_one_number_in_every_split(tmp_path):
    for split, colors in (("train", ("blue", "red", "white")), ("test", ("red",))):
        for number, color in enumerate(colors):
            (tmp_path / split / color).mkdir(parents=True)
            (tmp_path / split / color / f"{number}.png").write_bytes(png(number))
    source = Folder(train=str(tmp_path / "train"), test=str(tmp_path / "test"), val_fraction=0)
    assert source.split("test", 32).class_names == source.split("train", 32).class_names == ("blue", "red", "white")
    assert source.split("test", 32)[0].label == 1


def test_any_tree_is_searched_without_hidden_files_and_link_loops(tmp_path):
    for name in ("a.png", "b/c.PNG", "b/d/e.png", ".hidden.png", ".git/f.png", "notes.txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(0))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "g.png").write_bytes(png(1))
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "b" / "up").symlink_to(tmp_path / "data")
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    assert [dataset[index].key for index in range(len(dataset))] == ["a.png", "b/c.PNG", "b/d/e.png", "linked/g.png"]


def test_globs_and_lists_of_folders(tmp_path):
    for part in ("one", "two"):
        fill_folder(tmp_path / part, 4)
    globbed = Folder(train=str(tmp_path / "*" / "00[01].png"), captions="none", val_fraction=0, test_fraction=0)
    assert [globbed.split("train", 32)[index].key for index in range(4)] == [
        f"{part}/00{number}.png" for part in ("one", "two") for number in (0, 1)
    ]
    listed = Folder(train=[str(tmp_path / "one"), str(tmp_path / "two")], val_fraction=0, test_fraction=0)
    dataset = listed.split("train", 32)
    assert [dataset[index].key for index in (0, 7)] == ["one/000.png", "two/003.png"]
    assert dataset[7].caption == caption(3)


def test_the_fingerprint_is_that_of_the_content_not_of_the_place(tmp_path):
    fill_folder(tmp_path / "data", 20)
    shutil.copytree(tmp_path / "data", tmp_path / "copies" / "data")
    one, other = (Folder(train=str(place)) for place in (tmp_path / "data", tmp_path / "copies" / "data"))
    assert one.split("train", 32).fingerprint == other.split("train", 32).fingerprint
    (tmp_path / "data" / "000.png").write_bytes(png(77))
    changed = Folder(train=str(tmp_path / "data"))
    assert changed.split("train", 32).fingerprint != one.split("train", 32).fingerprint


def test_large_collections_are_identified_without_reading_them(tmp_path, monkeypatch):
    fill_folder(tmp_path / "data", 20)
    monkeypatch.setattr("tessella.data.records.HASHED_BYTES", 100)
    before = Folder(train=str(tmp_path / "data")).split("train", 32).fingerprint
    assert Folder(train=str(tmp_path / "data")).split("train", 32).fingerprint == before
    (tmp_path / "data" / "000.png").write_bytes(png(0))
    assert Folder(train=str(tmp_path / "data")).split("train", 32).fingerprint != before


def test_a_dangling_link_is_a_file_that_cannot_be_used(tmp_path, monkeypatch):
    fill_folder(tmp_path / "data", 5)
    (tmp_path / "data" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"1 of 6 images .*gone\.png: unreadable file: No such file"):
        Folder(train=str(tmp_path / "data"), captions="none").split("train", 32)


CAPTIONS_FILES = [
    ("x.csv", "name,words\na.png,b\n", "has columns name, words; it needs one of file_name, file"),
    ("x.csv", "file_name,words\na.png,b\n", "it needs one of caption, text"),
    ("x.json", "{", "cannot be read: "),
    ("x.json", "3", "must hold one object per image"),
    ("x.json", "[]", "holds no captions"),
    ("x.jsonl", '{"file": "000.png", "text": 3}', "entry 1 of .* lacks 'file' or 'text', or they are no text"),
    ("x.xml", "<a/>", "its suffix is none of .json"),
    ("x.csv", "file,text\n000.png,a\n", r"2 of 3 images have no caption in .*x\.csv, such as 001\.png, 002\.png"),
    ("x.csv", "file,text\n000.png,a\n001.png,a\n002.png,a\nno.png,b\n", "names 1 images that do not exist, such as"),
    ("x.csv", "file,text\n000.png,a\n000.png,b\n", "has two captions for 000.png"),
]


@pytest.mark.parametrize(("name", "text", "message"), CAPTIONS_FILES)
def test_captions_files_that_cannot_be_used(tmp_path, name, text, message):
    fill_folder(tmp_path / "data", 3)
    (tmp_path / "data" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        Folder(train=str(tmp_path / "data"), captions_file=str(tmp_path / "data" / name)).split("train", 32)


def test_locations_that_cannot_be_used(tmp_path):
    fill_folder(tmp_path / "photos", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos" / "captions.jsonl").unlink()

    def refused(message: str, **arguments) -> None:
        with pytest.raises(ValueError, match=message):
            Folder(**arguments).split("train", 32)

    refused(r"data\.train=.*fotos does not exist; .* has photos", train=str(tmp_path / "fotos"))
    refused(
        r"data\.test=.*a/b does not exist; .*empty is empty",
        train=str(tmp_path / "photos"),
        test=str(tmp_path / "empty" / "a" / "b"),
    )
    refused(r"no image files \(\.jpg .*\) in .*empty \(data\.train\)", train=str(tmp_path / "empty"))
    refused(r"data\.train is empty", train=[])
    refused(r"no captions file in .*; name it captions\.jsonl", train=str(tmp_path / "photos"), captions="file")
    refused(r"x\.csv does not exist \(data\.captions_file\)", train=str(tmp_path / "photos"), captions_file="x.csv")
    refused("3 images lie outside class folders, such as 000.png", train=str(tmp_path / "photos"), captions="classes")
