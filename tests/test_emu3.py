"""Emu3's tokenizer skips what cannot change a still image; its image sizes and what it refuses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tessella.data.pixel_area import PixelArea, to_pixels
from tessella.tokenizers.checkpoints import export_weights, import_weights
from tessella.tokenizers.emu3 import Emu3Decoder, Emu3Encoder
from tessella.tokenizers.official_emu3 import from_official_config, layout, unwrap

CONFIG = {
    "codebook_size": 64,
    "embed_dim": 4,
    "z_channels": 4,
    "double_z": False,
    "in_channels": 3,
    "out_channels": 3,
    "temporal_downsample_factor": 4,
    "ch": 8,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [1],
    "norm_num_groups": 4,
}


def tokenizer(seed: int = 0, **changes):
    """With statistics and codes that do not make errors invisible."""
    torch.manual_seed(seed)
    built = from_official_config(CONFIG | changes, image_size=16).eval()
    with torch.no_grad():
        for name, tensor in built.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "bias", "codebook")):
                tensor.normal_()
    return built


def encode_clip(encoder: Emu3Encoder, clip: Tensor) -> Tensor:
    """(B, 3, T, H, W) -> (B, C, T / num_frames, h, w): every frame for itself, as for any clip."""
    x = torch.stack([encoder.frame(frame) for frame in clip.unbind(2)], 2)
    for halve in encoder.time_halves:
        x = F.silu(halve(x))
    return encoder.to_codes(encoder.time_blocks(x))


def decode_clip(decoder: Emu3Decoder, codes: Tensor) -> Tensor:
    """(B, C, T, h, w) -> (B, 3, T * num_frames, H, W)."""
    both = decoder.time_blocks(torch.cat([decoder.from_codes(codes), codes]))
    for double in decoder.time_doubles:
        both = F.silu(double(both.repeat_interleave(2, 2)))
    latents, codes = both.chunk(2)
    frames = [decoder.frame(*pair) for pair in zip(latents.unbind(2), codes.unbind(2), strict=True)]
    return torch.stack(frames, 2)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_still_images_are_clips_of_equal_frames(factor):
    built = tokenizer(temporal_downsample_factor=factor)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        z = built.encoder(images)
        clip = encode_clip(built.encoder, images[:, :, None].repeat(1, 1, factor, 1, 1))
        assert clip.shape == (2, 4, 1, 4, 6)
        torch.testing.assert_close(z, clip[:, :, 0], atol=1e-6, rtol=1e-6)
        decoded = decode_clip(built.decoder, z[:, :, None])
        assert decoded.shape == (2, 3, factor, 8, 12)
        torch.testing.assert_close(built.decoder(z), decoded[:, :, 0], atol=1e-6, rtol=1e-6)


def test_images_of_a_batch_do_not_influence_each_other():
    built = tokenizer()
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        together = built.encode(images)
        alone = built.encode(images[1:2])
        assert torch.equal(together.ids[1:2], alone.ids)
        torch.testing.assert_close(built.decode(together.latents)[1:2], built.decode(alone.latents))


def test_every_weight_of_a_still_image_learns():
    built = tokenizer().train()
    images = torch.rand(2, 3, 16, 16)
    encoding = built.encode(images)
    loss = (built.decode(encoding.latents) - images).square().mean() + sum(encoding.losses.values())
    loss.backward()
    without = [name for name, weight in built.named_parameters() if weight.grad is None or not weight.grad.any()]
    # The bias of the keys adds the same to all scores of a query, which softmax does not see.
    assert all(name.endswith("key.bias") for name in without), without


def test_official_weights_come_back_with_their_names():
    built = tokenizer()
    official = export_weights(built, layout(built))
    assert "decoder.up.1.block.0.norm1.conv_y.weight" in official
    assert "encoder.time_res_stack.0.norm1.num_batches_tracked" in official
    other = tokenizer(seed=1)
    assert import_weights(other, unwrap(official), layout(other)) == {}
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(other.encode(images).latents, built.encode(images).latents)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"double_z": True}, "double_z=True"),
        ({"embed_dim": 8}, "embed_dim=8"),
        ({"temporal_downsample_factor": 3}, "use 2 or 4"),
        ({"temporal_downsample_factor": 0}, "use 1 or 2"),
        ({"attn_resolutions": [32]}, "attention_levels"),
    ],
)
def test_configurations_without_a_release_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        from_official_config(CONFIG | changes)


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match="lacks ch, z_channels"):
        from_official_config({name: value for name, value in CONFIG.items() if name not in ("ch", "z_channels")})


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((512, 512), (512, 512)),
        ((700, 701), (704, 704)),
        ((100, 100), (512, 512)),
        ((100, 400), (256, 1024)),
        ((3000, 4000), (880, 1176)),
        ((1024, 1025), (1024, 1024)),
    ],
)
def test_sides_are_whole_cells_and_the_area_is_bounded(size, wanted):
    assert PixelArea().size(*size) == wanted
    assert PixelArea().size(*size[::-1]) == wanted[::-1]


@pytest.mark.parametrize("size", [(7, 30), (100, 501)])
def test_sizes_that_no_cells_fit_are_refused(size):
    with pytest.raises(ValueError, match="an image of"):
        PixelArea().size(*size)


def test_bounds_that_exclude_everything_are_refused():
    with pytest.raises(ValueError, match="min_pixels=10"):
        PixelArea(min_pixels=10, max_pixels=9)


def test_pixels_survive_preparation_and_the_way_back():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    prepared = PixelArea(min_pixels=1).prepared(pixels)
    assert prepared.shape == (3, 16, 24)
    assert np.abs(to_pixels(prepared).astype(int) - pixels).max() <= 1  # cut off, not rounded
    assert to_pixels(np.array([[[-0.1]], [[0.999]], [[1.5]]])).tolist() == [[[0, 254, 255]]]
