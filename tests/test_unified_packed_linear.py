"""Packed weights give what a plain product gives, in every layout."""

import pytest
import torch
import torch.nn.functional as F

from tessella.unified import packed_linear
from tessella.unified.packed_linear import PackedLinear


@pytest.fixture(params=["as the machine has it", "without oneDNN", "without FBGEMM", "with neither"])
def machine(request, monkeypatch):
    if request.param in ("without oneDNN", "with neither"):
        monkeypatch.setattr(packed_linear, "_has_onednn", lambda weight: False)
    if request.param in ("without FBGEMM", "with neither"):
        monkeypatch.setattr(packed_linear, "_fits_float16", lambda weight: False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_every_layout_gives_the_product(machine, dtype, tolerance, rows, bias):
    torch.manual_seed(0)
    weight, x, offset = torch.randn(37, 50), torch.randn(rows, 50), torch.randn(37) if bias else None
    linear = PackedLinear(weight, offset, dtype=dtype, rows=rows)
    product = linear(x)
    rounded = (None if part is None else part.to(dtype).double() for part in (x, weight, offset))
    expected = F.linear(*rounded)
    assert product.dtype == dtype
    assert (product.double() - expected).norm() / expected.norm() < tolerance
    torch.testing.assert_close(linear(torch.cat([x, x, x]))[rows : 2 * rows], product)


def test_the_weight_is_a_copy():
    weight, bias, x = torch.randn(8, 4), torch.randn(8), torch.randn(2, 4)
    for dtype in (torch.float32, torch.bfloat16):
        linear = PackedLinear(weight, bias, dtype=dtype, rows=2)
        before = linear(x)
        for part in (weight, bias):
            part.add_(1)
        assert torch.equal(linear(x), before)


def test_weights_beyond_float16_stay_bfloat16():
    weight = torch.tensor([[1e30, 1.0], [2.0, -3e4]])
    product = PackedLinear(weight, dtype=torch.bfloat16, rows=1)(torch.ones(1, 2))
    torch.testing.assert_close(product, torch.tensor([[1e30, -3e4]]).bfloat16())
