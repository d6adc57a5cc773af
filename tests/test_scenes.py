"""Procedural scenes: deterministic, drawn as described, and never showing training what test asks for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import tessella
from tessella.data.scene_claims import Claim, ObjectClaim, holds
from tessella.data.scene_objects import Scene, SceneObject
from tessella.data.scene_world import SceneWorld
from tessella.data.scenes import Scenes

CONF = Path(tessella.__file__).parent / "conf" / "data"


@pytest.fixture(scope="module", params=["simple", "full"])
def source(request):
    return Scenes(level=request.param, train_size=400, val_size=64, test_size=700)


def distinct_captions(dataset):
    """(kind, caption) in order of first use."""
    captions, _ = dataset.annotations(range(len(dataset)))
    return [(dataset.world.read(caption).kind, caption) for caption in dict.fromkeys(captions)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_example_is_a_pure_function_of_its_index(source, split):
    dataset = source.split(split, image_size=32)
    again = Scenes(level=source.world.level, train_size=400, val_size=64, test_size=700).split(split, image_size=32)
    indices = [5, 0, 33, 5]
    batch = dataset.batch(indices)
    for row, index in enumerate(indices):
        example = again[index]
        assert torch.equal(batch.images[row], example.image.float() / 255)
        assert batch.captions is not None
        assert (batch.captions[row], batch.questions[row]) == (example.caption, example.questions)
        assert example.key == f"{split}/{index}"
    assert batch.indices.tolist() == indices
    assert batch.labels is None
    assert batch.images.dtype == torch.float32
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1


def test_annotations_are_those_of_the_batch(source):
    dataset = source.split("train", image_size=16)
    batch = dataset.batch([7, 3], step=5)
    assert dataset.annotations([7, 3]) == (batch.captions, batch.questions)


def test_seeds_and_splits_draw_other_examples(source):
    other = Scenes(level=source.world.level, train_size=400, val_size=64, test_size=700, seed=1)
    first = source.split("train", 32).batch(range(32))
    assert first.captions != other.split("train", 32).batch(range(32)).captions
    assert first.captions != source.split("val", 32).batch(range(32)).captions
    # What is asked of the test split stays, but for whole descriptions of scenes, which are too many to list.
    asked = [
        {caption for kind, caption in distinct_captions(some.split("test", 32)) if kind != "full"}
        for some in (source, other)
    ]
    assert asked[0] == asked[1]


def test_fingerprint_tells_apart_whatever_changes_the_examples(source):
    level = source.world.level
    prints = [source.split(split, 32).fingerprint for split in ("train", "val", "test")]
    prints.append(source.split("train", 64).fingerprint)
    prints.append(Scenes(level=level, train_size=400, seed=1).split("train", 32).fingerprint)
    prints.append(Scenes(level=level, train_size=401).split("train", 32).fingerprint)
    assert len(set(prints)) == len(prints)
    assert Scenes(level=level, train_size=400).split("train", 32).fingerprint == prints[0]


def test_held_out_captions_never_occur_in_training(source):
    large = Scenes(level=source.world.level, train_size=6000, val_size=1000, test_size=700)
    seen = set(large.split("train", 16).batch(range(6000)).captions or [])
    seen |= set(large.split("val", 16).batch(range(1000)).captions or [])
    held_out = [caption for _, caption in distinct_captions(large.split("test", 16))]
    assert len(held_out) == len(set(held_out)) >= {"simple": 100, "full": 500}[source.world.level]
    assert not seen & set(held_out)


def test_captions_hold_for_their_own_scene_and_read_back(source):
    world = source.world
    for split in ("train", "test"):
        dataset = source.split(split, image_size=16)
        captions = dataset.batch(range(400)).captions or []
        for caption, scene in zip(captions, dataset.scenes(range(400)), strict=True):
            assert world.language.write(world.read(caption)) == caption
            assert all(world.judge(caption, scene).values())


def test_simple_holds_out_exactly_a_quarter_and_every_value_is_on_both_sides():
    sampler = Scenes().sampler
    assert (len(sampler.train_rows), len(sampler.test_rows)) == (324, 108)
    assert not set(sampler.train_rows) & set(sampler.test_rows)
    for attribute in sampler.combinations.T:
        for rows in (sampler.train_rows, sampler.test_rows):
            assert set(attribute[rows]) == set(attribute)


def test_simple_test_split_asks_for_every_held_out_caption():
    dataset = Scenes().split("test", image_size=16)
    assert len(dataset) == 512
    prompts = distinct_captions(dataset)
    assert prompts == Scenes().sampler.prompts
    batch = dataset.batch(range(512))
    assert batch.captions is not None
    assert set(batch.captions) == {caption for _, caption in prompts}
    same = [row for row, caption in enumerate(batch.captions) if caption == prompts[0][1]]
    assert len(same) >= 4
    assert len(torch.unique(batch.images[same], dim=0)) > 1  # other jitter or background


def test_simple_question_answers_agree_with_the_caption():
    batch = Scenes().split("train", image_size=16).batch(range(200))
    assert batch.captions is not None
    for caption, questions in zip(batch.captions, batch.questions, strict=True):
        assert [question.kind for question in questions] == ["colour", "shape", "size", "vertical", "horizontal"]
        answers = {question.kind: question.answer for question in questions}
        words = caption.split()
        assert words[1:4] == [answers["size"], answers["colour"], answers["shape"]]
        place = " ".join(words[6:])
        assert all(" " not in answer for answer in answers.values())
        assert (answers["vertical"] in place) == (answers["vertical"] != "middle")
        assert (answers["horizontal"] in place) == (answers["horizontal"] != "middle")


def test_object_is_drawn_in_its_color_at_its_place():
    source = Scenes()
    dataset = source.split("train", image_size=64)
    images = dataset.batch(range(100)).images.numpy()
    for image, scene in zip(images, dataset.scenes(range(100)), strict=True):
        found = scene.objects[0]
        background = image[:, 0, 0]
        assert np.allclose(background * 255, source.world.greys[scene.background], atol=0.01)
        inside = np.abs(image - background[:, None, None]).sum(axis=0) > 0.05
        y, x = (float(axis.mean()) for axis in np.nonzero(inside))
        assert np.hypot(y - 16 * (found.row + 1), x - 16 * (found.column + 1)) < 6
        assert np.abs(image[:, round(y), round(x)] - source.world.palette[found.color]).max() < 0.01


def test_pictures_scale_with_the_image_size():
    small, large = (Scenes().split("train", size).batch(range(24)).images for size in (64, 192))
    shrunk = torch.nn.functional.avg_pool2d(large, 3)
    assert (small - shrunk).abs().mean() < 0.004


@pytest.mark.parametrize(
    ("caption", "complaint"),
    [
        ("a small purpel circle at the top left", "does not know 'purpel'"),
        ("circle red a", "order of its words"),
        ("two red circles", "order of its words"),
        ("a red circle and a blue square", "order of its words"),
    ],
)
def test_caption_outside_the_grammar_is_refused(caption, complaint):
    with pytest.raises(ValueError, match=complaint):
        SceneWorld("simple").read(caption)


def test_caption_reading_forgives_case_spelling_and_silence():
    world = SceneWorld("simple")
    assert world.read("A large RED cross at the Centre.") == world.read("a large red cross at the center")
    assert world.read("a red cross").objects == (ObjectClaim(shape=3, color=0),)


def test_simple_verdict_names_every_claimed_attribute():
    world = SceneWorld("simple")
    cross = SceneObject(shape=3, color=0, size=1, texture=0, cell=4)
    other = SceneObject(shape=0, color=1, size=0, texture=0, cell=0)
    caption = "a large red cross at the center"
    right = {"colour": True, "place": True, "size": True, "shape": True}
    assert world.judge(caption, Scene((cross,), 0)) == {**right, "all": True}
    assert world.judge(caption, Scene((cross, other), 0)) == {**right, "all": False}
    assert not any(world.judge(caption, Scene((), 0)).values())
    assert world.judge("a red cross", Scene((cross,), 0)) == {"colour": True, "shape": True, "all": True}


def test_two_claimed_objects_need_two_objects():
    ring = SceneObject(shape=0, color=0, size=0, texture=0, cell=0)
    claim = Claim("two", (ObjectClaim(0), ObjectClaim(0)))
    assert not holds(claim, Scene((ring,), 0))
    assert holds(claim, Scene((ring, ring), 0))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"level='medium'.*simple, full.*data\.level"):
        Scenes(level="medium")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"test_size=0.*data\.test_size"):
        Scenes(test_size=0)
    with pytest.raises(ValueError, match=r"split='dev'.*train, val, test"):
        Scenes().split("dev", 64)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"image_size=8.*16 or more.*tokenizer\.image_size"):
        Scenes().split("train", 8)
    with pytest.raises(IndexError, match="0 to 511"):
        Scenes().split("val", 16).batch([512])


@pytest.mark.parametrize("name", ["scenes", "scenes_full"])
def test_shipped_config_builds_the_source(name):
    source = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    dataset = source.split("test", image_size=16)
    assert dataset.name == source.name
    assert dataset.preparation["flip"] is False
    assert len(dataset) == source.sizes["test"]
