"""The oracle: right about true pictures, sturdy against what tokenizers do to them, and blind to noise."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tessella.data.scene_objects import SceneBatch
from tessella.data.scenes import Scenes
from tessella.metrics.oracle import SceneOracle, summarize

COUNT = 160


@pytest.fixture(scope="module", params=["simple", "full"])
def case(request):
    """An oracle with held-out pictures, their captions and their true scenes."""
    source = Scenes(level=request.param)
    dataset = source.split("test", image_size=64)
    batch = dataset.batch(range(COUNT))
    return SceneOracle(source.world, image_size=64), batch.images, batch.captions, dataset.scenes(range(COUNT))


def draw(world, *, image_size=64, background=0, **objects):
    """One picture of the given attributes, without jitter; each attribute is a list over the objects."""
    count = len(objects["shape"])
    rest = [[*values, *[0] * (world.max_objects - count)] for values in objects.values()]
    columns = dict(zip(objects, np.array(rest)[:, None], strict=True))
    defaults = {name: np.zeros((1, world.max_objects), dtype=np.int64) for name in ("color", "size", "texture", "cell")}
    still = np.zeros((1, world.max_objects, 2), dtype=np.int64)
    scene = SceneBatch(
        **{**defaults, **columns}, count=np.array([count]), jitter=still, background=np.array([background])
    )
    return torch.from_numpy(world.render(scene, image_size)).float() / 255


def compress(images, quality):
    back = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(
            file, "JPEG", quality=quality
        )
        back.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255)
    return torch.stack(back)


def blur(images, sigma):
    reach = int(4 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    rows = F.conv2d(F.pad(images, (0, 0, reach, reach), mode="replicate"), kernel[:, :, :, None], groups=3)
    return F.conv2d(F.pad(rows, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None, :], groups=3)


def spoil(images, how):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    match how:
        case "clean":
            return images
        case "jpeg":
            return compress(images, quality=90)
        case "blur":
            return blur(images, sigma=1.0)
        case "noise":
            return (images + 16 / 255 * noise).clamp(0, 1)
        case "halved":
            return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
        case "faded":
            return 0.75 * images + 0.05
        case "out of range":
            return images * 1.02 - 0.01


@pytest.mark.parametrize("how", ["clean", "jpeg", "blur", "noise", "halved", "faded", "out of range"])
def test_own_caption_is_kept_by_true_and_spoiled_pictures(case, how):
    oracle, images, captions, _ = case
    verdicts = oracle.score(spoil(images, how), captions)
    needed = {"clean": 0.99, "faded": 0.99, "out of range": 0.99}.get(how, 0.97)
    assert sum(verdict["all"] for verdict in verdicts) >= needed * COUNT


def test_whole_scene_is_parsed(case):
    oracle, images, _, scenes = case
    exact = [
        set(found.objects) == set(true.objects)
        and len(found.objects) == len(true.objects)
        and found.background == true.background
        for found, true in zip(oracle.parse(images), scenes, strict=True)
    ]
    assert sum(exact) >= 0.97 * COUNT


@pytest.mark.parametrize("image_size", [80, 128])
def test_larger_pictures_are_read_the_same(case, image_size):
    world = case[0].world
    dataset = Scenes(level=world.level).split("test", image_size)
    batch = dataset.batch(range(60))
    verdicts = SceneOracle(world, image_size).score(batch.images, batch.captions or [])
    assert sum(verdict["all"] for verdict in verdicts) >= 58


def test_pictures_without_objects_have_none(case):
    oracle, _, captions, _ = case
    noise = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert [len(scene.objects) for scene in oracle.parse(noise)] == [0] * 32
    flat = torch.full((4, 3, 64, 64), 0.4)
    assert [len(scene.objects) for scene in oracle.parse(flat)] == [0] * 4
    assert not any(value for verdict in oracle.score(flat, captions[:4]) for value in verdict.values())


def test_each_wrong_attribute_is_told_apart():
    world = Scenes().world
    oracle = SceneOracle(world, image_size=64)
    caption = "a large red square at the center"
    right = {"shape": [1], "color": [0], "size": [1], "cell": [4]}
    wrong = {"shape": [0], "color": [4], "size": [0], "cell": [5]}
    assert all(oracle.score(draw(world, **right), [caption])[0].values())
    for attribute, name in {"shape": "shape", "color": "colour", "size": "size", "cell": "place"}.items():
        changed = draw(world, **{**right, attribute: wrong[attribute]})
        verdict = oracle.score(changed, [caption])[0]
        assert {key for key, kept in verdict.items() if not kept} == {name, "all"}


def test_second_object_and_specks():
    world = Scenes().world
    oracle = SceneOracle(world, image_size=64)
    image = draw(world, shape=[1], color=[0], size=[1], cell=[0])
    speck, second = image.clone(), image.clone()
    speck[:, 0, 50:53, 50:53] = 1
    second[:, 2, 48:58, 44:54] = 1
    verdicts = oracle.score(torch.cat([speck, second]), ["a large red square at the top left"] * 2)
    assert [verdict["all"] for verdict in verdicts] == [True, False]
    assert all(kept for name, kept in verdicts[1].items() if name != "all")


def test_grey_and_shapeless_blobs_count_without_attributes():
    world = Scenes().world
    oracle = SceneOracle(world, image_size=64)
    grey = torch.full((1, 3, 64, 64), 0.1)
    grey[:, :, 26:38, 26:38] = 0.9
    (found,) = oracle.parse(grey)[0].objects
    assert (found.shape, found.color, found.size, found.cell) == (1, -1, 0, 4)
    wide = torch.full((1, 3, 64, 64), 0.1)
    wide[:, 0, 4:28, 4:60] = 0.9
    (found,) = oracle.parse(wide)[0].objects
    assert (found.shape, found.color, found.size) == (-1, -1, -1)


def test_neighbours_blurred_into_each_other_come_apart():
    world = Scenes(level="full").world
    oracle = SceneOracle(world, image_size=64)
    image = draw(
        world, shape=[1, 0, 5], color=[0, 2, 6], size=[1, 1, 1], cell=[3, 4, 5], texture=[1, 0, 1], background=2
    )
    scene = oracle.parse(blur(image, 1.0))[0]
    found = {(o.shape, o.color, o.size, o.texture, o.cell) for o in scene.objects}
    assert found == {(1, 0, 1, 1, 3), (0, 2, 1, 0, 4), (5, 6, 1, 1, 5)}
    assert scene.background == 2


def test_chance_floor_judges_captions_on_other_scenes(case):
    oracle, _, captions, scenes = case
    floor = oracle.chance_floor(captions, scenes)
    assert floor["all"] <= 0.05
    if oracle.world.level == "simple":
        expected = {"colour": 1 / 6, "place": 1 / 9, "size": 1 / 2, "shape": 1 / 4, "all": 0}
        assert floor == pytest.approx(expected, abs=0.06)
    with pytest.raises(ValueError, match="two different captions"):
        oracle.chance_floor(captions[:1] * 3, scenes[:3])


def test_summary_counts_every_name_by_itself():
    verdicts = [{"colour": True, "all": True}, {"colour": True, "all": False}, {"all": False}]
    rows = summarize(verdicts, "gen/oracle", floor={"all": 0.25})
    assert (rows["gen/oracle/colour"]["value"], rows["gen/oracle/colour"]["n"]) == (1.0, 2)
    assert (rows["gen/oracle/all"]["value"], rows["gen/oracle/all"]["n"]) == (pytest.approx(1 / 3), 3)
    assert rows["gen/oracle/all"]["floor"] == 0.25
    assert "floor" not in rows["gen/oracle/colour"]
    with pytest.raises(ValueError, match="no verdicts"):
        summarize([], "gen/oracle")


def test_wrong_pictures_are_refused(case):
    oracle, images, captions, _ = case
    with pytest.raises(ValueError, match=r"image_size=32 is too small.*64 or more \(tokenizer\.image_size\)"):
        SceneOracle(oracle.world, image_size=32)
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\) do not fit"):
        oracle.parse(torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match="4 images need as many captions, got 3"):
        oracle.score(images[:4], captions[:3])
    with pytest.raises(ValueError, match="'photograph'"):
        oracle.score(images[:1], ["a photograph"])


def test_parsing_does_not_depend_on_the_batch(case):
    oracle, images, _, _ = case
    whole = oracle.parse(images[:70])
    assert [oracle.parse(images[i : i + 1])[0] for i in (0, 33, 64, 69)] == [whole[i] for i in (0, 33, 64, 69)]
