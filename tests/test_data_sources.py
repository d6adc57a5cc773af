"""Folders, tar shards, parquet files and hub data sets behind one contract."""

import dataclasses

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from tessella.data import encoded_images
from tessella.data.folder import Folder
from tessella.data.hugging_face import HuggingFace
from tessella.data.parquet import Parquet
from tessella.data.webdataset import WebDataset

from .image_files import caption, fill_folder, fill_parquet, fill_shards, number_of, png, shown, use_hub


@pytest.fixture(params=["folder", "webdataset", "parquet", "hf"])
def source(request, tmp_path):
    """40 captioned pictures in each kind of container, by a function that takes further arguments."""
    place = tmp_path / "data"
    if request.param == "folder":
        fill_folder(place, 40)
        return lambda **arguments: Folder(train=str(place), **arguments)
    if request.param == "webdataset":
        fill_shards(place, 40)
        return lambda **arguments: WebDataset(train=str(place / "shard-*.tar"), **arguments)
    fill_parquet(place / "train.parquet", range(40))
    if request.param == "parquet":
        return lambda **arguments: Parquet(train=str(place / "train.parquet"), **arguments)
    use_hub(request.getfixturevalue("monkeypatch"), tmp_path)
    return lambda **arguments: HuggingFace(dataset=str(place), **arguments)


# One contract for every container ------------------------------------------------------------------------------------


def test_splits_are_disjoint_complete_and_the_same_at_every_opening(source):
    first, second = ([source().split(name, 32) for name in ("train", "val", "test")] for _ in range(2))
    assert sorted(number for dataset in first for number in shown(dataset)) == list(range(40))
    assert all(len(dataset) > 0 for dataset in first)
    assert len(first[0]) > 25
    for one, other in zip(first, second, strict=True):
        assert shown(one) == shown(other)
        assert one.fingerprint == other.fingerprint
    assert len({dataset.fingerprint for dataset in first}) == 3


def test_batches_agree_with_examples(source):
    dataset = source().split("train", 24)
    indices = torch.tensor([5, 0, 5, 11])
    batch = dataset.batch(indices)
    examples = [dataset[index] for index in indices.tolist()]
    assert batch.images.dtype == torch.float32
    assert batch.images.shape == (4, 3, 24, 24)
    assert torch.equal(batch.images, torch.stack([example.image for example in examples]).float().div(255))
    assert batch.captions == [example.caption for example in examples] == dataset.annotations(indices)[0]
    assert batch.captions == [caption(number_of(example.image)) for example in examples]
    assert batch.questions == dataset.annotations(indices)[1] == [(), (), (), ()]
    assert torch.equal(batch.indices, indices)
    assert batch.labels is None
    assert dataset.has_captions
    assert not dataset.has_questions
    assert dataset.class_names is None
    assert dataset.image_size == 24
    assert dataset.skipped == []


def test_indices_outside_are_refused(source):
    dataset = source().split("test", 32)
    for ask in (lambda: dataset[len(dataset)], lambda: dataset.batch([-1])):
        with pytest.raises(IndexError, match="outside the"):
            ask()


def test_a_seed_changes_the_splits_and_a_limit_only_shortens_them(source):
    full = source().split("train", 32)
    assert shown(source(seed=1).split("train", 32)) != shown(full)
    small, larger = (source(max_train=limit).split("train", 32) for limit in (5, 12))
    assert (len(small), len(larger)) == (5, 12)
    assert set(shown(small)) < set(shown(larger)) < set(shown(full))
    assert len(source(max_test=1).split("test", 32)) == 1
    assert len(source(max_val=1).split("val", 32)) == 1
    assert shown(larger) == [number for number in shown(full) if number in shown(larger)]  # source order is kept


def test_the_fingerprint_follows_everything_the_pixels_depend_on(source):
    fingerprints = [
        source().split("train", 32).fingerprint,
        source().split("train", 24).fingerprint,
        source(resize="pad").split("train", 32).fingerprint,
        source(crop="random").split("train", 32).fingerprint,
        source(flip=0.5).split("train", 32).fingerprint,
        source(flip=0.5, seed=1).split("train", 32).fingerprint,
        source(max_train=20).split("train", 32).fingerprint,
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    # evaluation splits are never augmented, so they are the same data under every training policy
    assert source(flip=0.5, crop="random").split("val", 32).fingerprint == source().split("val", 32).fingerprint


def test_augmentation_is_a_function_of_step_and_index_and_leaves_evaluation_alone(source):
    def images(name: str, step: int | None) -> torch.Tensor:
        return source(crop="random", flip=0.5).split(name, 24).batch([0, 1, 2], step=step).images

    assert torch.equal(images("train", 7), images("train", 7))
    assert not torch.equal(images("train", 7), images("train", 8))
    assert torch.equal(images("train", None), source().split("train", 24).batch([0, 1, 2]).images)
    dataset = source(crop="random", flip=0.5).split("train", 24)
    dataset.batch([2, 1])
    assert torch.equal(dataset.batch([0, 1, 2], step=7).images, images("train", 7))  # not of earlier visits
    assert torch.equal(
        source(flip=1.0).split("test", 24).batch([0], step=7).images, source().split("test", 24).batch([0]).images
    )


def test_an_unknown_split_is_refused(source):
    with pytest.raises(ValueError, match="split='dev' is unknown; use one of train, val, test"):
        source().split("dev", 32)


# Splits --------------------------------------------------------------------------------------------------------------


def test_new_files_move_no_old_ones(tmp_path):
    fill_folder(tmp_path / "data", 30)
    before = {name: shown(Folder(train=str(tmp_path / "data")).split(name, 32)) for name in ("train", "val", "test")}
    fill_folder(tmp_path / "data", 60)
    for name, numbers in before.items():
        after = shown(Folder(train=str(tmp_path / "data")).split(name, 32))
        assert [number for number in after if number < 30] == numbers


def test_a_location_of_its_own_is_the_whole_split(tmp_path):
    fill_folder(tmp_path / "train", 40)
    fill_folder(tmp_path / "test", 7)
    source = Folder(train=str(tmp_path / "train"), test=str(tmp_path / "test"))
    assert shown(source.split("test", 32)) == list(range(7))
    assert len(source.split("train", 32)) + len(source.split("val", 32)) == 40
    all_given = Folder(train=str(tmp_path / "train"), val=str(tmp_path / "test"), test_fraction=0.5)
    assert len(all_given.split("val", 32)) == 7
    assert len(all_given.split("train", 32)) + len(all_given.split("test", 32)) == 40


def test_splits_that_share_a_file_are_refused(tmp_path):
    fill_folder(tmp_path / "data", 5)
    source = Folder(train=str(tmp_path / "data"), test=str(tmp_path / "data" / "00[34].png"), captions="none")
    with pytest.raises(
        ValueError, match=r"003\.png belongs to data\.train and to data\.test; give every split its own"
    ):
        source.split("train", 32)


def test_an_empty_split_is_refused(tmp_path):
    fill_folder(tmp_path / "data", 3)
    source = Folder(train=str(tmp_path / "data"), val_fraction=0.0)
    with pytest.raises(
        ValueError, match=r"no val examples among the 3 images .* raise data\.val_fraction or give data\.val"
    ):
        source.split("val", 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_fraction": 1.0}, r"val_fraction=1\.0 must lie in \[0, 1\)"),
        ({"test_fraction": -0.1}, r"test_fraction=-0\.1 must lie"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on; use 0.05 and 0.1"),
        ({"max_train": 0}, "max_train=0 leaves nothing; use 1 or more, or null"),
        ({"flip": 2.0}, "flip=2.0"),
        ({"captions": "exif"}, "captions='exif' is unknown; use one of auto, file"),
        ({"captions": "classes", "captions_file": "a.csv"}, "captions=classes must be file"),
    ],
)
def test_impossible_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        Folder(train="anywhere", **arguments)


# Files that cannot be used -------------------------------------------------------------------------------------------


def half_a_picture(number: int) -> bytes:
    return png(number)[:-60]  # the header is whole


def test_a_file_that_does_not_decode_is_named_and_replaced_by_the_next(tmp_path):
    fill_folder(tmp_path / "data", 200, broken={17: half_a_picture(17), 18: half_a_picture(18)})

    def open_all():
        return Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)

    forward, backward = open_all(), open_all()
    numbers = [*range(17), 19, 19, *range(19, 200)]
    assert shown(forward) == numbers
    assert [number_of(backward[index].image) for index in reversed(range(200))] == numbers[::-1]
    assert forward[17].key == "019.png"
    assert forward[17].caption == caption(19)
    # what training on cached tokens asks for agrees, although nothing was decoded before
    assert open_all().annotations([18, 16])[0] == [caption(19), caption(16)]
    batch = open_all().batch([16, 17])
    assert batch.captions == [caption(16), caption(19)]
    assert batch.indices.tolist() == [16, 17]
    for dataset in (forward, backward):
        assert {key for key, _ in dataset.skipped} == {"017.png", "018.png"}
        assert all("corrupt PNG" in reason for _, reason in dataset.skipped)
    assert forward.fingerprint == backward.fingerprint


def test_the_last_file_is_replaced_by_the_first(tmp_path):
    fill_folder(tmp_path / "data", 100, broken={99: half_a_picture(99)})
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    assert number_of(dataset[99].image) == 0


def test_more_than_one_percent_of_broken_files_is_an_error_when_met(tmp_path):
    fill_folder(tmp_path / "data", 100, broken={5: half_a_picture(5), 50: half_a_picture(50)})
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    dataset[5]
    with pytest.raises(ValueError, match=r"2 of 100 images in .* more than 1% \(005\.png: corrupt PNG.*; 050\.png"):
        dataset.batch(range(100))


def test_files_with_a_bad_header_are_left_out_when_they_are_few(tmp_path):
    fill_folder(tmp_path / "data", 200, broken={3: b"not a picture", 4: png(4, height=20)})
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    assert shown(dataset) == [0, 1, 2, *range(5, 200)]
    assert dataset.skipped == [
        ("003.png", "not an image: the file starts with b'not a pictur'"),
        ("004.png", "40x20 pixels, less than min_size=32"),
    ]


def test_more_than_one_percent_of_bad_headers_is_an_error_before_any_work(tmp_path):
    fill_folder(tmp_path / "data", 40, broken={number: b"hello" for number in (3, 9, 20, 30)})
    with pytest.raises(
        ValueError, match=r"4 of 40 images .* \(003\.png: .*hello.*; 009\.png: .*; 020\.png: [^;]*\); remove"
    ):
        Folder(train=str(tmp_path / "data")).split("train", 32)
    tiny = Folder(train=str(tmp_path / "data"), min_size=64)
    with pytest.raises(ValueError, match=r"40 of 40 images .* or lower data\.min_size"):
        tiny.split("train", 32)


def test_a_data_set_without_any_good_image_is_an_error(tmp_path, monkeypatch):
    fill_folder(tmp_path / "data", 3, broken={number: half_a_picture(number) for number in range(3)})
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    monkeypatch.setattr("tessella.data.records.TOLERATED", 1.0)
    with pytest.raises(ValueError, match="none of the 3 images of folder/data can be decoded"):
        dataset[0]


def test_a_file_that_shrank_since_the_headers_were_checked_is_refused(tmp_path):
    fill_folder(tmp_path / "data", 100)
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 32)
    (tmp_path / "data" / "000.png").write_bytes(png(0, height=8))
    dataset[0]
    assert dataset.skipped == [("000.png", "40x8 pixels, less than min_size=32")]


@pytest.mark.parametrize("crop", ["center", "random"])
def test_keeping_prepared_images_changes_nothing_but_the_reads(tmp_path, monkeypatch, crop):
    fill_folder(tmp_path / "data", 12)
    source = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0, crop=crop, flip=0.5)
    reads = []
    monkeypatch.setattr(
        encoded_images, "decode", lambda *given, real=encoded_images.decode: reads.append(0) or real(*given)
    )
    kept = source.split("train", 24)
    first, again = (kept.batch(range(12), step=3).images for _ in range(2))
    assert len(reads) == 12
    monkeypatch.setattr(encoded_images, "KEPT_BYTES", 12 * 3 * 24 * 24 - 1)
    never = source.split("train", 24)
    decoded = [never.batch(range(12), step=3).images for _ in range(2)]
    assert len(reads) == 36
    assert all(torch.equal(images, first) for images in (again, *decoded))


@pytest.mark.parametrize("kept", [True, False])
def test_what_becomes_of_an_example_changes_no_other(tmp_path, monkeypatch, kept):
    fill_folder(tmp_path / "data", 3)
    if not kept:
        monkeypatch.setattr(encoded_images, "KEPT_BYTES", 0)
    dataset = Folder(train=str(tmp_path / "data"), val_fraction=0, test_fraction=0).split("train", 40)
    before = [dataset[i].image.clone() for i in range(3)]
    for i in range(3):
        dataset[i].image.zero_()
    assert all(torch.equal(dataset[i].image, image) for i, image in enumerate(before))


# Configuration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"), [("folder", Folder), ("webdataset", WebDataset), ("parquet", Parquet), ("hf", HuggingFace)]
)
def test_every_yaml_names_every_argument_with_its_default(name, kind):
    with initialize_config_module("tessella.conf", version_base=None):
        cfg = compose(
            overrides=[f"+data={name}", "data.train=[a,b]", *(["data.dataset=x/y"] if name == "hf" else [])]
        ).data
    built = instantiate(cfg)
    assert type(built) is kind
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    assert set(cfg) == {"_target_", *fields}
    for key, default in fields.items():
        if default is not dataclasses.MISSING and key != "train":
            assert cfg[key] == default, key
