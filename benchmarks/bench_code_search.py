"""Nearest-code search: time, peak extra memory, and ids against an exact search in float64."""

import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from compare import Benchmark
from torch import Tensor

from tessella.tokenizers.quantizers.search import nearest, search_table
from tessella.tokenizers.quantizers.vq import VectorQuantizer

MATERIALIZED = "all distances, then argmin"
SEARCH, QUANTIZER = "tessella search", "tessella VectorQuantizer, forward"


def main() -> int:
    bench = Benchmark(
        "code_search",
        "Nearest-code search",
        ("tessella", "torch", "vector-quantize-pytorch", "faiss-cpu", "numpy"),
    )
    vq_pytorch = bench.peer("vector_quantize_pytorch", "vector-quantize-pytorch")
    faiss = bench.peer("faiss", "faiss-cpu")
    if faiss is not None:
        faiss.omp_set_num_threads(bench.threads)
    count = size = 512 if bench.quick else 16384
    for dim, cosine, least in ((8, True, 10), (32, False, 8)):
        generator = torch.Generator().manual_seed(dim)
        z, codebook = (torch.randn(rows, dim, generator=generator) for rows in (count, size))
        if cosine:
            z, codebook = F.normalize(z, dim=-1), F.normalize(codebook, dim=-1)
        contenders = {MATERIALIZED: lambda z=z, codebook=codebook: materialized(z, codebook)}
        contenders["torch.cdist, argmin"] = lambda z=z, codebook=codebook: torch.cdist(z, codebook).argmin(1)
        if vq_pytorch is not None:
            contenders["vector-quantize-pytorch, forward"] = vq_pytorch_search(vq_pytorch, z, codebook, cosine)
        if faiss is not None:
            contenders["faiss-cpu IndexFlat"] = faiss_search(faiss, z, codebook, cosine)
        contenders |= ours(z, codebook, cosine)

        title = f"{count} vectors of {dim}, {size} codes, {'cosine' if cosine else 'Euclidean'}"
        with torch.no_grad():
            rows = bench.race(title, contenders, work=count, unit="vectors", rounds=3, memory_rounds=1)
        bench.goal(f"{SEARCH} over {MATERIALIZED}", bench.ratio(rows, SEARCH, MATERIALIZED), at_least=least)
        others = [name for name in contenders if not name.startswith("tessella")]
        bench.goal(f"{SEARCH} over the fastest peer", bench.ratio(rows, SEARCH, others), at_least=1, stretch=True)
        extra = rows[SEARCH].peak_extra_bytes
        bench.goal(f"extra memory of {SEARCH}", None if extra is None else extra / 1e6, at_most=64, unit="MB")
        check(bench, z, codebook, cosine, {name: row.result for name, row in rows.items()})
    return bench.finish()


def materialized(z: Tensor, codebook: Tensor) -> Tensor:
    """|z|^2 + |e|^2 - 2 z.e as one (N, K) table: the search of the published VQ tokenizers."""
    squares = z.square().sum(1, keepdim=True) + codebook.square().sum(1)
    return (squares - 2 * torch.einsum("nc,kc->nk", z, codebook)).argmin(1)


def vq_pytorch_search(vq_pytorch, z: Tensor, codebook: Tensor, cosine: bool) -> Callable[[], Tensor]:
    module = vq_pytorch.VectorQuantize(codebook.shape[1], len(codebook), use_cosine_sim=cosine).eval()
    module.codebook = codebook
    return lambda: module(z[None])[1][0]


def faiss_search(faiss, z: Tensor, codebook: Tensor, cosine: bool) -> Callable[[], Tensor]:
    index = (faiss.IndexFlatIP if cosine else faiss.IndexFlatL2)(codebook.shape[1])
    index.add(codebook.numpy())
    return lambda: torch.from_numpy(index.search(z.numpy(), 1)[1][:, 0])


def ours(z: Tensor, codebook: Tensor, cosine: bool) -> dict[str, Callable[[], Tensor]]:
    table = search_table(codebook, normalize=cosine)
    quantizer = VectorQuantizer(len(codebook), codebook.shape[1], normalize=cosine).eval()
    quantizer.codebook.data.copy_(codebook)
    return {SEARCH: lambda: nearest(z, table), QUANTIZER: lambda: quantizer(z)[1]}


def check(bench: Benchmark, z: Tensor, codebook: Tensor, cosine: bool, found: dict[str, Tensor]) -> None:
    """Ids may differ from float64's where two codes are equally near: exactly for ours, in float32 for peers."""
    margins = {name: [] for name in found}
    exact_codes = F.normalize(codebook.double(), dim=-1) if cosine else codebook.double()
    half_squares = torch.zeros(len(codebook)) if cosine else exact_codes.square().sum(1) / 2
    for first in range(0, len(z), 1024):
        part = slice(first, first + 1024)
        scores = z[part].double() @ exact_codes.T - half_squares
        best = scores.amax(1)
        for name, ids in found.items():
            margins[name].append(best - scores.gather(1, ids[part, None])[:, 0])
    scale = float(z.norm(dim=1).max() * codebook.norm(dim=1).max()) + float(half_squares.max())
    for name, parts in margins.items():
        behind = torch.cat(parts)
        allowed = 0.0 if name.startswith("tessella") else 1e-5 * scale
        worse = int((behind > allowed).sum())
        near_ties = int(((behind > 0) & (behind <= allowed)).sum())
        detail = f"{worse} of {len(z)} ids differ"
        bench.check(f"{name} and float64", worse == 0, detail + f", {near_ties} near ties" * bool(near_ties))


if __name__ == "__main__":
    sys.exit(main())
