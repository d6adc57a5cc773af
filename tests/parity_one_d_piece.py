"""One-D-Piece (turingmotors/One-D-Piece): TiTok in both stages whose every prefix of tokens decodes."""

import torch

from tessella.tokenizers.one_d import OneDTokenizer
from tessella.tokenizers.titok_stages import PixelStage, ProxyStage

from .parity_cases import Case
from .parity_titok import build, check_encoding, check_stage1_train, check_stage2_train, tokens


@torch.no_grad()
def check_lengths(case: Case, tokenizer: OneDTokenizer, kind: str) -> None:
    """Full length, and each recorded number of leading tokens, from latents and from ids."""
    latents = check_encoding(case, tokenizer).latents
    ids = tokens(case)
    case.close(tokenizer.decoded(latents), f"{kind}_full")
    for k in case.inputs["lengths"].tolist():
        case.close(tokenizer.decoded(latents[:, :k]), f"{kind}_k{k}")
        case.close(tokenizer.decoded(tokenizer.dequantize(ids[:, :k])), f"{kind}_from_tokens_k{k}")


def check_stage1(case: Case) -> None:
    tokenizer = build(case)
    assert isinstance(tokenizer, ProxyStage)
    check_lengths(case, tokenizer, "logits")


def check_stage2(case: Case) -> None:
    tokenizer = build(case)
    assert isinstance(tokenizer, PixelStage)
    check_lengths(case, tokenizer, "image")


CHECKS = {
    "one_d_piece_stage1": check_stage1,
    "one_d_piece_stage2": check_stage2,
    "one_d_piece_stage1_train": check_stage1_train,
    "one_d_piece_stage2_train": check_stage2_train,
}
