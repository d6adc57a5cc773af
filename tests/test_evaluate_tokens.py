"""What evaluation keeps of single tokens and codes: it is about the token, the cell and the code it names."""

import pytest
import torch
from torch import nn

from tessella.data.scenes import Scenes
from tessella.experiments import evaluate_contributions, evaluate_shared_codes
from tessella.experiments.evaluate_confusion import caption_confusion
from tessella.experiments.evaluate_contributions import add_contributions, contribution_maps
from tessella.experiments.evaluate_shared_codes import Grid, SharedCodes, shared_codes, token_grids
from tessella.experiments.phase import Evaluation
from tessella.tokenizers.base import ImageTokenizer


class Cells(ImageTokenizer):
    """Id of a cell is the gray it is painted in."""

    vocab_size, latent_dim = 16, 1

    def __init__(self, side: int, image_size: int = 32, step_lengths: tuple[int, ...] | None = None):
        super().__init__()
        self.grid_size, self.image_size, self.num_latents = side, image_size, side**2
        self.step_lengths = step_lengths or (1,) * side**2
        self.weight = nn.Parameter(torch.ones(1))

    def dequantize(self, ids):
        return ids[..., None] / 15

    def decode(self, latents):
        grid = latents[..., -self.num_latents :, 0].unflatten(1, (1, self.grid_size, self.grid_size))
        factor = self.image_size // self.grid_size
        return grid.repeat_interleave(factor, 2).repeat_interleave(factor, 3).expand(-1, 3, -1, -1)


def random_ids(count: int, length: int) -> torch.Tensor:
    return torch.randint(16, (count, length), generator=torch.Generator().manual_seed(0))


# contributions --------------------------------------------------------------------------------------------------------


def test_replacing_a_token_moves_its_own_pixels_alone():
    maps = contribution_maps(Cells(4), random_ids(3, 16), batch_size=7)
    assert maps.shape == (16, 32, 32)
    for token, found in enumerate(maps):
        row, column = divmod(token, 4)
        cell = found[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].clone()
        assert cell.min() > 0
        found[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
        assert not found.any()


def test_every_token_is_replaced_in_every_image():
    """Without luck in the draw: with two codes the other id is certain, and with it the change."""
    tokenizer = Cells(4)
    tokenizer.vocab_size = 2
    maps = contribution_maps(tokenizer, torch.tensor([[0, 1] * 8] * 5), batch_size=4)
    assert torch.allclose(maps.amax((1, 2)), torch.full((16,), 1 / 15))


def test_maps_are_seeded_and_do_not_depend_on_the_batch():
    ids = random_ids(5, 16)
    first = contribution_maps(Cells(4), ids, batch_size=64)
    assert torch.equal(first, contribution_maps(Cells(4), ids, batch_size=1))


def test_kept_maps_share_one_scale(monkeypatch):
    monkeypatch.setattr(evaluate_contributions, "MOST_PIXELS", 8)
    result = Evaluation()
    ids = random_ids(12, 16)
    add_contributions(result, Cells(4), ids, 32, lambda text: None)
    maps, notes = result.tensors["contributions"], result.notes["contributions"]
    assert maps.dtype == torch.uint8
    assert maps.shape == (16, 1, 8, 8)
    assert maps.max() == 255
    exact = contribution_maps(Cells(4), ids[:8], 32)
    assert torch.allclose(maps[:, 0] * (notes["scale"] / 255), exact, atol=notes["scale"] / 255)
    assert notes["means"] == pytest.approx(exact.mean((1, 2)).tolist())
    assert notes["images"] == 8
    assert notes["step_lengths"] == [1] * 16


@pytest.mark.parametrize(("vocab_size", "most"), [(None, 16), (1, 16), (16, 15)])
def test_no_maps_where_there_is_nothing_to_replace_or_too_much(vocab_size, most, monkeypatch):
    monkeypatch.setattr(evaluate_contributions, "MOST_TOKENS", most)
    tokenizer = Cells(4)
    tokenizer.vocab_size = vocab_size
    result = Evaluation()
    add_contributions(result, tokenizer, random_ids(2, 16), 32, lambda text: None)
    assert not result.tensors
    assert not result.notes


def test_tokens_that_change_nothing_have_black_maps():
    tokenizer = Cells(4)
    tokenizer.decode = lambda latents: torch.zeros(len(latents), 3, 32, 32)
    result = Evaluation()
    add_contributions(result, tokenizer, random_ids(2, 16), 32, lambda text: None)
    assert not result.tensors["contributions"].any()
    assert result.notes["contributions"]["scale"] == 0


# shared codes ---------------------------------------------------------------------------------------------------------


def test_codes_are_ranked_by_the_images_that_hold_them_and_by_their_detail(monkeypatch):
    monkeypatch.setattr(evaluate_shared_codes, "CODES", 1)
    ids = torch.tensor([[1, 1, 1, 2], [2, 3, 3, 3], [2, 3, 0, 4], [2, 4, 5, 6]])
    detail = torch.zeros(4, 4)
    detail[2, 3] = detail[1, 1] = 0.5  # codes 4 and 3
    detail[3, 1] = 0.1  # code 4 again
    detail[0, 0] = 9.0  # code 1, of a single image
    rows = shared_codes(ids, detail, 7)
    assert [(row["code"], row["by"], row["uses"], row["images"]) for row in rows] == [
        (2, "images", 4, 4),
        (4, "detail", 2, 2),
    ]
    assert rows[0]["patches"] == [[0, 3], [1, 0], [2, 0], [3, 0]]
    assert rows[1]["patches"] == [[2, 3], [3, 1]]


def test_patches_come_from_distinct_images_at_the_middle_place():
    rows = shared_codes(torch.tensor([[5, 7, 7, 7, 7]] * 30), torch.zeros(30, 5), 8)
    assert [row["code"] for row in rows] == [7, 5]
    assert rows[0]["patches"] == [[image, 3] for image in range(8)]


def test_detail_is_the_variance_within_the_cells():
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, ::2, :4] = 1  # stripes in the left half; the lower right is flat but bright
    images[:, :, 4:, 4:] = 1
    shared = SharedCodes(Cells(2, image_size=8))
    shared.update(images, torch.zeros(2, 4, dtype=torch.int64))
    assert torch.allclose(shared._detail[0][0], torch.tensor([0.25, 0, 0.25, 0]).expand(2, 4))


def kept(tokenizer, ids, test):
    result, shared = Evaluation(), SharedCodes(tokenizer)
    shared.update(test.batch(range(len(ids))).images, ids)
    shared.add_to(result, test)
    return result


def test_patches_are_the_cells_of_the_test_images():
    test = Scenes(test_size=6).split("test", 64)
    tokenizer = Cells(4, image_size=64)
    ids = torch.full((6, 16), 9)
    ids[:, 6] = 3  # second row, third column
    result = kept(tokenizer, ids, test)
    rows = result.notes["shared_codes"]
    assert [(row["grid"], row["code"], len(row["patches"])) for row in rows] == [(4, 9, 6), (4, 3, 6)]
    patches = result.tensors["patches/4"]
    assert patches.shape == (12, 3, 16, 16)
    for image in range(6):
        assert torch.equal(patches[6 + image], test[image].image[:, 16:32, 32:48])


def test_grids_are_read_off_the_tokenizer():
    assert token_grids(Cells(4)) == [Grid(0, 4)]
    assert token_grids(Cells(4, step_lengths=(1, 4, 16))) == [Grid(0, 1), Grid(1, 2), Grid(5, 4)]
    assert token_grids(Cells(4, step_lengths=(1, 5, 14))) == []
    row = Cells(4)
    del row.grid_size
    assert token_grids(row) == []
    assert not kept(row, random_ids(2, 16), Scenes(test_size=2).split("test", 64)).tensors
    assert Grid(0, 27).cell(28, 384) == (14, 14, 14)


def test_every_scale_has_patches_of_its_own_size(monkeypatch):
    monkeypatch.setattr(evaluate_shared_codes, "MOST_PIXELS", 32)
    test = Scenes(test_size=3).split("test", 64)
    result = kept(Cells(4, image_size=64, step_lengths=(1, 4, 16)), torch.full((3, 21), 5), test)
    shapes = {name: tuple(patches.shape) for name, patches in result.tensors.items()}
    assert shapes == {"patches/1": (3, 3, 32, 32), "patches/2": (3, 3, 32, 32), "patches/4": (3, 3, 16, 16)}
    assert [row["grid"] for row in result.notes["shared_codes"]] == [1, 2, 4]


def test_codes_of_a_single_image_are_not_shared():
    test = Scenes(test_size=2).split("test", 64)
    result = kept(Cells(2, image_size=64), torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), test)
    assert not result.tensors
    assert not result.notes


# confusion ------------------------------------------------------------------------------------------------------------


def test_confusion_counts_true_against_chosen():
    world = Scenes().world
    true = ["a small red circle at the top", "a small red circle at the top", "a large blue square in the center"]
    chosen = ["a small red circle at the top", "a large blue circle at the top", "a large blue square at the left"]
    found = caption_confusion(world, true, chosen)
    names = found["colour"]["names"]
    counts = found["colour"]["counts"]
    assert counts[names.index("red")][names.index("blue")] == 1
    assert counts[names.index("red")][names.index("red")] == 1
    assert counts[names.index("blue")][names.index("blue")] == 1
    assert sum(map(sum, counts)) == 3
    places = found["place"]["names"]
    assert found["place"]["counts"][places.index("center")][places.index("left")] == 1
    assert found.keys() == {"colour", "shape", "place", "size"}


def test_attributes_that_a_caption_leaves_open_are_not_counted():
    found = caption_confusion(Scenes().world, ["a red circle", "a circle"], ["a blue circle", "a red circle"])
    assert found.keys() == {"colour", "shape"}
    assert sum(map(sum, found["colour"]["counts"])) == 1


def test_worlds_of_several_objects_have_no_confusion():
    assert caption_confusion(Scenes(level="full").world, ["a red circle"], ["a blue circle"]) == {}
    assert caption_confusion(None, ["a cat"], ["a dog"]) == {}
