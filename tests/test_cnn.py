"""The convolutional family: what its arguments change, and the critic of its reconstructions."""

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.cnn_blocks import ResidualBlock
from tessella.tokenizers.cnn_maskgit import MaskGITDecoder, MaskGITEncoder
from tessella.tokenizers.discriminators import (
    PatchGAN,
    hinge_discriminator_loss,
    hinge_generator_loss,
    logistic_discriminator_loss,
)
from tessella.tokenizers.quantizers.vq import VectorQuantizer
from tessella.tokenizers.vq import GridTokenizer

MASKGIT = {"channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 2, "z_channels": 5, "num_groups": 4}


def test_a_shortcut_leads_around_the_block_unless_it_reads_the_output():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    for shortcut in ("input", "output"):
        block = ResidualBlock(4, 8, 2, bias=False, shortcut=shortcut)
        computed = block.conv2(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x))))))
        around = F.conv2d(x if shortcut == "input" else computed, block.shortcut.weight)
        torch.testing.assert_close(block(x), around + computed)
    block = ResidualBlock(4, 4, 2, shortcut="output")  # nothing to widen: the identity in either case
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    assert torch.equal(block(x), x)


def test_dropout_is_for_training_alone():
    torch.manual_seed(0)
    block, x = ResidualBlock(8, 8, 2, dropout=0.5), torch.randn(1, 8, 6, 6)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_maskgit_encoder_and_decoder_have_the_published_parts():
    encoder, decoder = MaskGITEncoder(**MASKGIT), MaskGITDecoder(**MASKGIT)
    assert encoder(torch.rand(2, 3, 12, 8)).shape == (2, 5, 6, 4)
    assert decoder(torch.rand(2, 5, 6, 4)).shape == (2, 3, 12, 8)
    biased = [name for name, _ in encoder.named_parameters() if name.endswith("bias") and "norm" not in name]
    assert biased == ["head.bias"]
    biased = [name for name, _ in decoder.named_parameters() if name.endswith("bias") and "norm" not in name]
    assert biased == ["stem.bias", "levels.0.resample.conv.bias", "head.bias"]
    assert encoder.head.kernel_size == (1, 1)
    assert [len(level.blocks) for level in decoder.levels] == [2, 2]
    assert len(encoder.middle) == len(decoder.middle) == 2


def test_every_weight_of_a_tokenizer_without_projections_learns():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(20, 5, normalize=False)
    tokenizer = GridTokenizer(
        MaskGITEncoder(**MASKGIT), quantizer, MaskGITDecoder(**MASKGIT), image_size=16, pixel_range=(0, 1)
    )
    encoding = tokenizer.encode(torch.rand(4, 3, 16, 16))
    (tokenizer.decode(encoding.latents).square().mean() + sum(encoding.losses.values())).backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())


def test_pixel_range_is_what_the_networks_see():
    torch.manual_seed(0)
    parts = MaskGITEncoder(**MASKGIT), VectorQuantizer(20, 5, normalize=False), MaskGITDecoder(**MASKGIT)
    images = torch.rand(1, 3, 8, 8)
    unit = GridTokenizer(*parts, image_size=8, pixel_range=(0, 1)).eval()
    signed = GridTokenizer(*parts, image_size=8).eval()
    assert torch.equal(unit.encode(images).ids, signed.encode((images + 1) / 2).ids)
    codes = unit.dequantize(torch.arange(16)[None])
    pixels = unit.to_pixels(codes.transpose(1, 2).unflatten(2, (4, 4)))
    assert torch.equal(unit.decode(codes), pixels.clamp(0, 1))
    torch.testing.assert_close(signed.decode(codes), ((pixels + 1) / 2).clamp(0, 1))


def test_a_logit_of_the_critic_sees_70_pixels():
    critic = PatchGAN(channels=4).eval()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.abs_()
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = critic(images)
    assert logits.shape == (1, 1, 14, 14)
    logits[0, 0, 7, 7].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(0)
    assert int((seen.sum(0) > 0).sum()) == int((seen.sum(1) > 0).sum()) == 70


def test_losses_of_the_game_are_the_definitions():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 3.0])
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1 + 4) / 3) / 2)
    assert hinge_generator_loss(fake).item() == pytest.approx(-1 / 3)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(3))
    expected = (expected + F.binary_cross_entropy_with_logits(fake, torch.zeros(3))) / 2
    torch.testing.assert_close(logistic_discriminator_loss(real, fake), expected)


def test_a_critic_learns_to_tell_noise_from_flat():
    torch.manual_seed(0)
    critic = PatchGAN(channels=8, num_layers=2)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3)
    for _ in range(10):
        real, fake = critic(torch.rand(4, 3, 32, 32)), critic(torch.full((4, 3, 32, 32), 0.5))
        loss = hinge_discriminator_loss(real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchGAN(num_layers=0), "num_layers=0"),
        (lambda: ResidualBlock(4, 8, 2, shortcut="around"), "shortcut='around'"),  # type: ignore[arg-type]
        (lambda: MaskGITEncoder(**(MASKGIT | {"channel_multipliers": ()})), "0 levels"),
        (
            lambda: GridTokenizer(
                MaskGITEncoder(**MASKGIT),
                VectorQuantizer(20, 5, normalize=False),
                MaskGITDecoder(**MASKGIT),
                image_size=8,
                pixel_range=(1, 0),
            ),
            "pixel_range=\\(1, 0\\)",
        ),
    ],
)
def test_impossible_networks_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
