"""Level `full`: unseen pairs, captions that say what their kind says, and questions with one true answer."""

from collections import Counter, defaultdict

import pytest
import torch

from tessella.data.scene_claims import RELATIONS
from tessella.data.scene_full import KINDS
from tessella.data.scene_language import NUMBERS, plural
from tessella.data.scene_objects import Scene, SceneObject
from tessella.data.scene_world import SceneWorld
from tessella.data.scenes import Scenes


@pytest.fixture(scope="module")
def source():
    return Scenes(level="full", train_size=3000, test_size=592)


@pytest.fixture(scope="module")
def train(source):
    dataset = source.split("train", image_size=16)
    return dataset.batch(range(1500)), dataset.scenes(range(1500))


def test_training_never_draws_a_held_out_pair_and_test_nothing_else(source, train):
    def pairs(scenes):
        return {(found.shape, found.color) for scene in scenes for found in scene.objects}

    held_out = set(source.sampler.pools["test"])
    assert len(held_out) == 16
    assert pairs(train[1]) == set(source.sampler.pools["train"])
    assert pairs(source.split("test", 16).scenes(range(592))) == held_out
    for place in (0, 1):
        assert set(Counter(pair[place] for pair in held_out).values()) == {2}


def test_every_kind_is_asked_for(source, train):
    world = source.world
    drawn = Counter(world.read(caption).kind for caption in train[0].captions)
    assert set(drawn) == set(KINDS)
    assert min(drawn.values()) > 140
    captions, _ = source.split("test", 16).annotations(range(592))
    prompts = Counter(world.read(caption).kind for caption in set(captions))
    assert (prompts["single"], prompts["two"]) == (2, 14)
    assert all(prompts[kind] >= 16 for kind in KINDS if kind not in ("single", "two"))


def test_full_captions_tell_two_scenes_apart(source, train):
    batch, scenes = train
    world = source.world
    full = [(c, s) for c, s in zip(batch.captions, scenes, strict=True) if world.read(c).kind == "full"]
    for row, (caption, _) in enumerate(full[:40]):
        for other, (_, scene) in enumerate(full[:40]):
            assert world.judge(caption, scene)["all"] == (row == other)


def test_one_to_four_objects_in_distinct_cells(train):
    counts = Counter(len(scene.objects) for scene in train[1])
    assert set(counts) == {1, 2, 3, 4}
    assert all(len({found.cell for found in scene.objects}) == len(scene.objects) for scene in train[1])


def test_answers_are_true(source, train):
    world, (batch, scenes) = source.world, train
    answers = defaultdict(Counter)
    singular = {plural(shape): shape for shape in world.shapes}
    for questions, scene in zip(batch.questions, scenes, strict=True):
        assert len({question.kind for question in questions}) == len(questions) >= 6
        for question in questions:
            answers[question.kind][question.answer] += 1
            words = {singular.get(word, word) for word in question.text.rstrip("?").split()}
            # Whoever knows the scene and reads the words can only answer this way.
            named = [
                found
                for found in scene.objects
                if not (set(world.colors) & words - {world.colors[found.color]})
                and not (set(world.shapes) & words - {world.shapes[found.shape]})
                and ("the shape at the" not in question.text or f"the {world.cells[found.cell]}" in _place(question))
            ]
            match question.kind:
                case "colour":
                    assert {world.colors[found.color] for found in named} == {question.answer}
                case "shape":
                    assert {world.shapes[found.shape] for found in named} == {question.answer}
                case "place":
                    assert {world.cells[found.cell] for found in named} == {question.answer}
                case "texture":
                    assert {world.textures[found.texture] for found in named} == {question.answer}
                case "existence":
                    assert bool(named) == (question.answer == "yes")
                case "background":
                    assert question.answer == world.backgrounds[scene.background]
                case "count":
                    assert len(named) == NUMBERS.index(question.answer)
    assert set(answers) == {"count", "colour", "shape", "place", "texture", "existence", "background"}
    assert 0.4 < answers["existence"]["no"] / sum(answers["existence"].values()) < 0.6


def _place(question):
    """The place a question names, alone: "the top" must not be found in "the top left"."""
    return [question.text.rstrip("?").split("the shape at ")[1].removesuffix(" plain or striped")]


@pytest.mark.parametrize(("relation", "opposite"), [(0, 1), (1, 0), (2, 3), (3, 2)])
def test_relations_are_judged_by_the_grid(relation, opposite):
    world = SceneWorld("full")
    ring = {"shape": 5, "color": 0, "size": 0, "texture": 0}
    star = {"shape": 6, "color": 2, "size": 1, "texture": 1}
    near, far = (0, 8) if relation in (0, 2) else (8, 0)
    scene = Scene((SceneObject(**ring, cell=near), SceneObject(**star, cell=far)), background=0)
    assert world.judge(f"a red ring {RELATIONS[relation]} a blue star", scene) == {"all": True, "kind/relation": True}
    assert not world.judge(f"a red ring {RELATIONS[opposite]} a blue star", scene)["all"]
    same = Scene((SceneObject(**ring, cell=4), SceneObject(**star, cell=4)), background=0)
    assert not world.judge(f"a red ring {RELATIONS[relation]} a blue star", same)["all"]


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("a ring", True),
        ("a star", False),
        ("a red ring", True),
        ("a blue ring", False),
        ("a red ring in the top left", True),
        ("a red ring at the center", False),
        ("two red rings", True),
        ("three red rings", False),
        ("a red ring and a blue cross", True),
        ("a blue ring and a red cross", False),
        ("a ring and a ring", True),
        ("a cross and a cross", False),
        (
            "a small plain red ring at the top left and a large striped red ring at the top"
            " and a small plain blue cross at the center on a grey background",
            True,
        ),
        ("a small plain red ring at the top left on a grey background", False),
        (
            "a small plain red ring at the top left and a large striped red ring at the top"
            " and a small plain blue cross at the center on a black background",
            False,
        ),
    ],
)
def test_claims_are_checked_against_the_scene(caption, kept):
    world = SceneWorld("full")
    objects = (
        SceneObject(shape=5, color=0, size=0, texture=0, cell=0),
        SceneObject(shape=5, color=0, size=1, texture=1, cell=1),
        SceneObject(shape=4, color=2, size=0, texture=0, cell=4),
    )
    verdict = world.judge(caption, Scene(objects, background=1))
    assert verdict["all"] == kept
    assert verdict[f"kind/{world.read(caption).kind}"] == kept


def test_striped_objects_keep_their_hue():
    source = Scenes(level="full", train_size=300)
    dataset = source.split("train", image_size=64)
    images = dataset.batch(range(300)).images
    chroma = images - images.mean(dim=1, keepdim=True)
    for scene, picture in zip(dataset.scenes(range(300)), chroma, strict=True):
        if len(scene.objects) == 1:
            color = torch.from_numpy(source.world.palette[scene.objects[0].color])
            expected = torch.nn.functional.normalize(color - color.mean(), dim=0)
            found = torch.nn.functional.normalize(picture.sum(dim=(1, 2)), dim=0)
            assert expected @ found > 0.999
