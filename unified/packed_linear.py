"""A linear map that few rows at a time go through, its weight laid out once for the processor it runs on."""

import torch
from torch import Tensor

FEW_ROWS = 3  # up to here the time is that of reading the weight
FLOAT16_MAX = 65504.0


class PackedLinear:
    """`x @ weight.T + bias` without gradients, for decoding.

    Sums are in float32 in any layout, so the layout decides their order and nothing else. On x86 two rows in bfloat16
    take 0.35 of a plain product's time and sixteen rows 0.6; in float32 sixteen rows take 0.6.

    Args:
        weight: (out, in), copied.
        bias: (out,) or None, copied.
        dtype: what the weight and the rows are rounded to, and what comes out.
        rows: how many usually go through together.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, dtype: torch.dtype, rows: int):
        self.dtype = dtype
        self._bias = None if bias is None else bias.detach().to(dtype, copy=True)
        weight = weight.detach().to(dtype)
        self._float16 = self._onednn = self._plain = None
        if rows <= FEW_ROWS and _fits_float16(weight):
            self._float16 = torch.ops.quantized.linear_prepack_fp16(weight.float(), None)
        elif _has_onednn(weight):
            self._onednn = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        else:  # (in, out): on CPU few rows read it faster
            self._plain = weight.t().clone(memory_format=torch.contiguous_format)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, in) of any type -> (n, out)."""
        x = x.to(self.dtype)
        if self._onednn is not None:
            return torch.ops.mkldnn._linear_pointwise(x.contiguous(), self._onednn, self._bias, "none", [], "")
        if self._float16 is not None:
            product = torch.ops.quantized.linear_dynamic_fp16(x.float(), self._float16).to(self.dtype)
        else:
            assert self._plain is not None
            product = x @ self._plain
        return product if self._bias is None else product.add_(self._bias)


def _fits_float16(weight: Tensor) -> bool:
    """Whether FBGEMM can keep a bfloat16 weight as float16, which it reads nearly as fast as memory gives it.

    float16 has more digits: all bfloat16 numbers from 6e-5 to 65504 are exact, smaller ones within 3e-8.
    """
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.quantized.engine in ("x86", "fbgemm")
        and float(weight.abs().max()) <= FLOAT16_MAX
    )


def _has_onednn(weight: Tensor) -> bool:
    """Whether oneDNN multiplies this type natively here; the operators are those of torch's own frozen graphs."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
