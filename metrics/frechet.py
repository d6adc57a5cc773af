"""Distances between two sets of image features: Frechet distance (the formula of FID) and kernel distance (of KID).

Nothing here knows the feature space. The numbers of two feature spaces, or of unlike image counts in the case of the
Frechet distance, share no scale; `feature_distance` names and annotates them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MIN_BLOCK = 1024  # rows per covariance update: large enough for a matrix product at full speed


class FeatureStatistics:
    """Streaming mean and covariance of (n, D) features in float64.

    Rows are gathered in a buffer of at least D rows, and a full buffer is added to the scatter matrix by one in-place
    symmetric rank-k update (BLAS dsyrk, half the work of a product). While all rows still fit the buffer they stay
    available as they are, which the Frechet distance uses when there are fewer images than dimensions.

    Args:
        dim: feature width D.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim={dim} must be at least 1 (the extractor's feature_dim).")
        self.dim = dim
        self.n = 0
        self._buffer = np.empty((max(dim, _MIN_BLOCK), dim))
        self._filled = 0
        # Sums are taken of features minus a fixed shift near their mean, so that the covariance does not cancel digits.
        self._shift: np.ndarray | None = None
        self._sum = np.zeros(dim)
        self._scatter = np.zeros((dim, dim), order="F")  # lower triangle only

    def update(self, features: Tensor) -> None:
        """Adds (B, D) features, any float type and device."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features have shape {tuple(features.shape)}; (B, {self.dim}) is needed.")
        if not torch.isfinite(features).all():
            raise ValueError("features hold NaN or infinity; finite images give finite features (check the generator).")
        narrow = features.dtype in (torch.float16, torch.bfloat16)
        rows = (features.float() if narrow else features).detach().cpu().numpy()
        while len(rows):
            if self._filled == len(self._buffer):
                self._flush()
            taken = rows[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            self.n += len(taken)
            rows = rows[len(taken) :]

    def _flush(self) -> None:
        rows = self._buffer[: self._filled]
        shift = rows.mean(0) if self._shift is None else self._shift
        self._shift = shift
        rows -= shift
        self._sum += rows.sum(0)
        self._scatter = _add_scatter(self._scatter, rows, in_place=True)
        self._filled = 0

    @property
    def mean(self) -> np.ndarray:
        """(D,) float64."""
        self._require(1)
        rows = self._buffer[: self._filled]
        if self._shift is None:
            return rows.mean(0)
        return self._shift + (self._sum + (rows - self._shift).sum(0)) / self.n

    @property
    def scatter(self) -> np.ndarray:
        """(n - 1) times the covariance: (D, D) float64 in Fortran order, a copy whose lower triangle alone is valid."""
        from scipy.linalg import get_blas_funcs

        self._require(2)
        rows = self._buffer[: self._filled] - (self.mean if self._shift is None else self._shift)
        total = self._sum + rows.sum(0)
        lower = _add_scatter(self._scatter, rows, in_place=False)
        (syr,) = get_blas_funcs(("syr",), (lower,))
        return syr(-1.0 / self.n, total, a=lower, lower=1, overwrite_a=True)

    @property
    def covariance(self) -> np.ndarray:
        """(D, D) float64 with the n - 1 denominator, symmetric."""
        matrix = self.scatter
        matrix /= self.n - 1
        for first in range(0, self.dim, 256):  # in blocks, so that one of the two sides is read in the order it lies in
            last = first + 256
            block = matrix[first:last, first:last]
            block[:] = np.tril(block) + np.tril(block, -1).T
            matrix[first:last, last:] = matrix[last:, first:last].T
        return matrix

    @property
    def total_variance(self) -> float:
        """Trace of the covariance."""
        self._require(2)
        rows = self._buffer[: self._filled] - (self.mean if self._shift is None else self._shift)
        total = self._sum + rows.sum(0)
        return float((np.trace(self._scatter) + np.square(rows).sum() - np.square(total).sum() / self.n) / (self.n - 1))

    @property
    def centered_rows(self) -> np.ndarray | None:
        """X with X^T X = covariance, (n, D), when n < D and the rows are still at hand; else None."""
        self._require(2)
        if self._shift is not None or self.n >= self.dim:
            return None
        rows = self._buffer[: self._filled]
        return (rows - rows.mean(0)) / np.sqrt(self.n - 1)

    def _require(self, n: int) -> None:
        if self.n < n:
            raise ValueError(f"statistics of {self.n} images: at least {n} are needed (evaluate more images).")


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two Gaussians with covariances A and B.

    Dowson and Landau 1982; Heusel et al. 2017. The trace of the root is the sum of the square roots of the eigenvalues
    of A B, found without forming a matrix square root: they are those of L^T B L for any L with A = L L^T, or of
    X B X^T when A = X^T X from fewer rows than dimensions. Exact for singular covariances as well: no jitter is added.

    Raises:
        ValueError: widths differ, or fewer than 2 images on a side.
    """
    if a.dim != b.dim:
        raise ValueError(f"features of widths {a.dim} and {b.dim} cannot be compared; use one extractor for both.")
    few, many = (a, b) if a.n <= b.n else (b, a)
    few_rows, many_rows = few.centered_rows, many.centered_rows
    if few_rows is None:
        matrix = _congruent(few, many)
    elif many_rows is None:
        matrix = few_rows @ many.covariance @ few_rows.T
    else:
        product = few_rows @ many_rows.T  # eigenvalues of A B = squared singular values of X Y^T
        matrix = product @ product.T
    # Of the lower triangle; rounding leaves tiny negatives.
    root = float(np.sqrt(np.linalg.eigvalsh(matrix).clip(min=0)).sum())
    offset = float(np.square(a.mean - b.mean).sum())
    return max(0.0, offset + a.total_variance + b.total_variance - 2 * root)


def _add_scatter(scatter: np.ndarray, rows: np.ndarray, *, in_place: bool) -> np.ndarray:
    """scatter + rows^T rows, lower triangle, by one BLAS dsyrk."""
    from scipy.linalg import get_blas_funcs

    (syrk,) = get_blas_funcs(("syrk",), (scatter,))
    # rows.T is Fortran-ordered, as BLAS wants it, so the rows are read where they lie.
    return syrk(1.0, rows.T, beta=1.0, c=scatter, lower=1, overwrite_c=in_place)


def _congruent(a: FeatureStatistics, b: FeatureStatistics) -> np.ndarray:
    """L^T B L with A = L L^T, lower triangle. No symmetric matrix is built: that would cost a seventh of the time."""
    from scipy.linalg import get_lapack_funcs

    lower_a, lower_b = a.scatter, b.scatter
    potrf, sygst = get_lapack_funcs(("potrf", "sygst"), (lower_a, lower_b))
    factor, failed = potrf(lower_a, lower=1, clean=0, overwrite_a=True)
    if failed:  # A is singular (a feature that never varies is enough): a symmetric root always exists
        values, vectors = np.linalg.eigh(a.covariance)
        factor = vectors * np.sqrt(values.clip(min=0))
        return factor.T @ b.covariance @ factor
    product, _ = sygst(lower_b, factor, itype=2, lower=1, overwrite_a=True)  # half the work of two products
    product /= (a.n - 1) * (b.n - 1)
    return product


def kernel_distance(a: Tensor, b: Tensor, block: int = 1024) -> float:
    """Unbiased squared maximum mean discrepancy over whole sets, with the cubic kernel (x.y / D + 1)^3.

    Binkowski et al. 2018, equation 4 (the estimate behind KID). Its expectation is 0 when both sets come from one
    distribution, at any n: single values may be slightly negative. Not scaled by 1000.

    Args:
        a, b: (n, D) and (m, D) features, at least 2 rows each; n and m may differ.
        block: rows per kernel block, which bounds memory at block^2 float64 values.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features have shapes {tuple(a.shape)} and {tuple(b.shape)}; (n, D) and (m, D) are needed.")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the kernel distance needs at least 2 images on each side, got {len(a)} and {len(b)}.")
    x, y = (features.detach().cpu().double() for features in (a, b))
    within_a = _mean_kernel_of_pairs(x, block)
    within_b = _mean_kernel_of_pairs(y, block)
    across = sum(float(_kernel(p, q).sum()) for p in x.split(block) for q in y.split(block)) / (len(x) * len(y))
    return within_a + within_b - 2 * across


def kernel_distance_of_subsets(
    a: Tensor, b: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of the kernel distance over random subsets: the protocol of published KID values.

    Each subset is drawn without replacement from each side. Equal to torch-fidelity up to the choice of subsets.
    """
    smaller = min(len(a), len(b))
    if subset_size > smaller:
        raise ValueError(f"subset_size={subset_size} exceeds the {smaller} images of the smaller set.")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(num_subsets):
        rows_a = torch.randperm(len(a), generator=generator)[:subset_size]
        rows_b = torch.randperm(len(b), generator=generator)[:subset_size]
        values.append(kernel_distance(a[rows_a.to(a.device)], b[rows_b.to(b.device)]))
    return float(np.mean(values)), float(np.std(values))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    k = (x @ y.T).div_(x.shape[1]).add_(1)
    return k * k * k  # pow(3) is several times slower


def _mean_kernel_of_pairs(x: Tensor, block: int) -> float:
    """Mean kernel over the ordered pairs of distinct rows."""
    blocks = x.split(block)
    total = 0.0
    for i, p in enumerate(blocks):
        diagonal = _kernel(p, p)
        total += float(diagonal.sum() - diagonal.diagonal().sum())
        total += 2 * sum(float(_kernel(p, q).sum()) for q in blocks[i + 1 :])
    return total / (len(x) * (len(x) - 1))
