"""The losses of the two stages, their discriminator, and the quantizer whose unused codes move."""

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.base import Encoding
from tessella.tokenizers.discriminator_blur import BlurDiscriminator, same_padding
from tessella.tokenizers.losses_1d import LogitDistance, PixelStageLoss, ProxyLoss
from tessella.tokenizers.quantizers.clustering import ClusteringQuantizer


def perceptual():
    return LogitDistance(torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Flatten(), torch.nn.Linear(48, 5)))


def pixel_loss(**options):
    torch.manual_seed(0)
    discriminator = BlurDiscriminator(channels=4, num_stages=1, num_groups=2)
    return PixelStageLoss(perceptual(), discriminator, **({"terms": {}, "gan_from": 10} | options))


def test_codes_are_compared_cell_by_cell():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 5, 3, 3), torch.randint(5, (2, 9))
    encoding = Encoding(torch.empty(0), losses={"commitment": torch.tensor(2.0)})
    total, terms = ProxyLoss(terms={"commitment": 0.25})(logits, targets, encoding)
    cells = [F.cross_entropy(logits[b, :, c // 3, c % 3], targets[b, c]) for b in range(2) for c in range(9)]
    torch.testing.assert_close(terms["proxy"], torch.stack(cells).mean())
    torch.testing.assert_close(total, terms["proxy"] + 0.5)


def test_a_loss_without_a_weight_is_refused():
    encoding = Encoding(torch.empty(0), losses={"codebook": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="'codebook' without a weight"):
        ProxyLoss(terms={})(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, dtype=torch.long), encoding)


def test_the_discriminator_joins_at_its_step_and_each_side_trains_itself_alone():
    loss = pixel_loss(l1_weight=0.5).train()
    assert not loss.perceptual.network.training
    images, reconstruction = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32, requires_grad=True)
    encoding = Encoding(torch.empty(0))
    total, terms = loss.generator(images, reconstruction, encoding, step=9)
    assert "gan" not in terms
    expected = F.mse_loss(reconstruction, images) + 0.5 * (reconstruction - images).abs().mean()
    torch.testing.assert_close(total, expected + 0.1 * terms["perceptual"])
    assert loss.discriminate(images, reconstruction, step=9) is None

    total, terms = loss.generator(images, reconstruction, encoding, step=10)
    total.backward()
    assert reconstruction.grad is not None
    assert all(p.grad is None and p.requires_grad for p in loss.discriminator.parameters())
    reconstruction.grad = None
    total, terms = loss.discriminate(images, reconstruction, step=10)
    total.backward()
    assert reconstruction.grad is None
    assert all(p.grad is not None for p in loss.discriminator.parameters())
    torch.testing.assert_close(total, terms["hinge"] + 0.001 * terms["lecam"])
    torch.testing.assert_close(loss.real_mean[0], 0.001 * terms["logits_real"].detach())


def test_the_discriminator_gives_256_verdicts_at_any_size():
    discriminator = BlurDiscriminator(channels=4, num_stages=2, num_groups=2)
    for size in (64, 65, 96):
        assert discriminator(torch.rand(1, 3, size, size)).shape == (1, 1, 16, 16)
    assert [same_padding(size) for size in (8, 9)] == [(1, 1), (1, 2)]
    assert discriminator.stages[0][1](torch.ones(1, 4, 9, 9)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match="use channels=32"):
        BlurDiscriminator(channels=40)


def test_the_published_discriminator_has_its_published_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in BlurDiscriminator().parameters()) == 1_909_889


def test_unused_codes_move_to_vectors_and_used_ones_stay():
    torch.manual_seed(0)
    quantizer = ClusteringQuantizer(4, 2, normalize=False)
    quantizer.codebook.data = torch.tensor([[0.0, 0.0], [9.0, 9.0], [0.5, 0.5], [-9.0, 9.0]])
    quantizer.usage.copy_(torch.tensor([0.5, 0.0, 0.5, 0.0]))
    z = torch.tensor([[[0.1, 0.0], [0.4, 0.6], [0.2, 0.1]]])
    z_q, ids, _ = quantizer.train()(z)
    assert ids.tolist() == [[0, 2, 0]]
    assert torch.equal(z_q[0, 0], torch.zeros(2))  # the codes of before the move
    after = quantizer.codebook.detach()
    torch.testing.assert_close(after[[0, 2]], torch.tensor([[0.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(after[[1, 3]], z[0, [1, 1]], atol=0.02, rtol=0)
    quantizer.eval()(z)
    assert torch.equal(quantizer.codebook, after)
