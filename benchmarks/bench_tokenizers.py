"""Encoding and decoding of every published tokenizer, beside transformers where it has the same tokenizer.

Images have 256 px, or the size that the configuration ties to the weights (tables of positions).

Weights are random; both sides have the same ones. Ours run in channels_last, in bfloat16 under autocast; the models of
transformers run as they are loaded, in bfloat16 with weights of that type. Peak memory is what a call needs beyond the
weights, of each contender alone. A subset: --only vq16 emu3.
"""

import copy
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compare import Benchmark, Row
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tokenizer_peers import PEERS, Peer
from torch import Tensor, nn

from tessella.tokenizers.base import ImageTokenizer, VisionEncoder
from tessella.tokenizers.quantizers.vq import VectorQuantizer

OURS = "tessella"
CONF = Path(__file__).resolve().parent.parent / "conf" / "tokenizer"
SIZE = 256  # pixels
# Tiny sizes of the tokenizers that have a peer, for --quick; norms of transformers have 32 groups.
TINY = {"image_size": 32, "quantizer.codebook_size": 128, "encoder.channels": 32, "decoder.channels": 32}
TINY_SIGLIP = {"image_size": 32, "hidden_size": 32, "num_layers": 1, "num_heads": 2, "mlp_size": 64}


def main() -> int:
    names = published()
    bench = Benchmark(
        "tokenizers",
        "Encoding and decoding of images",
        ("tessella", "torch", "transformers"),
        partial(add_options, names=names),
    )
    chosen = bench.options.only or [name for name in names if not bench.quick or name in PEERS]
    for name in chosen:
        measure(bench, name)
    return bench.finish()


def published() -> list[str]:
    """Names of the configurations that stand for themselves; ??? stands for a trained run."""
    return [file.stem for file in sorted(CONF.glob("*.yaml")) if "???" not in file.read_text(encoding="utf-8")]


def add_options(parser: ArgumentParser, names: list[str]) -> None:
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"measure these alone: {', '.join(names)}"
    )
    parser.add_argument("--images", type=int, default=1, help="images of a batch (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default: 3)")


def measure(bench: Benchmark, name: str) -> None:
    config = configuration(name, tiny=bench.quick)
    if "understanding" in config:
        print(f"\n{name}: nothing but two tokenizers of this list")
        return
    torch.manual_seed(0)
    tokenizer = build(config)
    peer = PEERS[name](tokenizer, OmegaConf.to_container(config)) if name in PEERS else None  # pyright: ignore
    tokenizer = nn.utils.convert_conv2d_weight_memory_format(copy.deepcopy(tokenizer), torch.channels_last)
    parameters = sum(weight.numel() for weight in tokenizer.parameters())
    print(f"\n{name}: {parameters:,} parameters{'' if peer else '; transformers has no such tokenizer'}")
    images = torch.rand(bench.options.images, 3, tokenizer.image_size, tokenizer.image_size)
    race = partial(
        bench.race, work=len(images), unit="images", rounds=bench.options.rounds, memory_rounds=0 if bench.quick else 1
    )
    size = f"{len(images)} image(s) of {tokenizer.image_size} px"
    reads = tokenizer.features if isinstance(tokenizer, VisionEncoder) else partial(ids_of, tokenizer)
    pictures = images * 2 - 1
    rows = race(f"{name}: encode, {size}", contenders(partial(reads, images), peer, peer and peer.read, pictures))
    judge(bench, f"{name}: encode", rows, peer, encode=True)
    if isinstance(tokenizer, VisionEncoder):
        return
    result = rows[f"{OURS}, fp32"].result
    ids = torch.randint(tokenizer.vocab_size, result.shape) if tokenizer.vocab_size else None
    latents = tokenizer.dequantize(ids).detach() if ids is not None else result
    write = peer.write if peer else None
    rows = race(f"{name}: decode, {size}", contenders(partial(tokenizer.decode, latents), peer, write, ids))
    judge(bench, f"{name}: decode", rows, peer if write else None, encode=False)


def configuration(name: str, *, tiny: bool) -> DictConfig:
    """The published configuration at 256 px, where its size is free."""
    with initialize_config_module("tessella.conf", version_base="1.3"):
        config = compose(overrides=[f"+tokenizer={name}"]).tokenizer
    if tiny:
        for key, value in (TINY_SIGLIP if name == "siglip" else TINY).items():
            OmegaConf.update(config, key, value)
    elif "image_size" in config:
        config.image_size = SIZE
    return config


def build(config: DictConfig) -> Any:
    """In eval mode, with codes that lie apart: a fresh codebook is a dense cloud, where rounding decides about ids."""
    tokenizer = instantiate(config).eval().requires_grad_(False)
    for part in tokenizer.children():
        if isinstance(part, VectorQuantizer):
            part.codebook.normal_()
            if part.normalize:
                part.codebook /= part.codebook.norm(dim=-1, keepdim=True)
    return tokenizer


def ids_of(tokenizer: ImageTokenizer, images: Tensor) -> Tensor:
    """Latents, where there are no ids."""
    encoding = tokenizer.encode(images)
    return encoding.latents if encoding.ids is None else encoding.ids


def contenders(ours: Callable[[], Tensor], peer: Peer | None, theirs, given) -> dict[str, Callable[[], Tensor]]:
    """The peer comes first: the table compares with its float32."""

    @torch.inference_mode()
    def full(run: Callable[[], Tensor]) -> Tensor:
        return run()

    @torch.inference_mode()
    def half(run: Callable[[], Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    found: dict[str, Callable[[], Tensor]] = {}
    if peer is not None and theirs is not None:
        small = copy.deepcopy(peer.module).to(torch.bfloat16)
        rounded = given.bfloat16() if given.is_floating_point() else given
        found[f"{peer.name}, fp32"] = partial(full, partial(theirs, peer.module, given))
        found[f"{peer.name}, bf16"] = partial(full, partial(theirs, small, rounded))
    return found | {f"{OURS}, fp32": partial(full, ours), f"{OURS}, bf16": partial(half, ours)}


def judge(bench: Benchmark, what: str, rows: dict[str, Row], peer: Peer | None, *, encode: bool) -> None:
    ours, half = rows[f"{OURS}, fp32"], rows[f"{OURS}, bf16"]
    if peer is not None:
        theirs = rows[f"{peer.name}, fp32"].result
        difference = disagreement(ours.result, theirs if encode else ((theirs + 1) / 2).clamp(0, 1))
        bench.check(f"{what} of {OURS} and {peer.name}, fp32", difference <= 0.01, f"difference {difference:.1e}")
    else:
        finite = bool(torch.isfinite(ours.result.float()).all())
        bench.check(f"{what} of {OURS}", finite, f"{tuple(ours.result.shape)}, finite")
    changed = disagreement(half.result.float() if half.result.is_floating_point() else half.result, ours.result)
    print(f"  bf16 against fp32, random weights: difference {changed:.1e}")
    if peer is not None and peer.name != "transformers SiglipVisionModel":
        for dtype, least in (("fp32", 1.25 if encode else 1.2), ("bf16", 2.5)):
            ratio = bench.ratio(rows, f"{OURS}, {dtype}", f"{peer.name}, fp32")
            bench.goal(f"{what}, {OURS} {dtype} over {peer.name} fp32", ratio, at_least=least)
        bench.goal(
            f"{what}, {OURS} bf16 over {peer.name} bf16",
            bench.ratio(rows, f"{OURS}, bf16", f"{peer.name}, bf16"),
            at_least=1,
        )
        full, needed = rows[f"{peer.name}, fp32"].peak_extra_bytes, half.peak_extra_bytes
        share = needed / full if needed is not None and full else None
        bench.goal(f"{what}, memory of {OURS} bf16 over {peer.name} fp32", share, at_most=0.5)


def disagreement(ours: Tensor, theirs: Tensor) -> float:
    """Share of ids that differ, or the relative difference of what is no ids."""
    if not ours.is_floating_point():
        return float((ours != theirs).float().mean())
    return float((ours - theirs).norm() / theirs.norm())


if __name__ == "__main__":
    sys.exit(main())
