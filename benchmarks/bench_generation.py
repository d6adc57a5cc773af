"""Image tokens a second with classifier-free guidance: tessella against transformers' Janus and the plain loop.

The plain loop is what Janus published, written anew: rows with and without caption in turn, transformers' LLM with its
growing cache, an MLP that embeds each id. It runs the same weights as tessella. Janus has its own embedding and head.
"""

import copy
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from compare import Benchmark
from torch import Tensor, nn
from untrained import transformers_llama, unified

from tessella.unified.decoder_llama import make_decoder
from tessella.unified.generate import write_images
from tessella.unified.model import UnifiedModel
from tessella.unified.sampling import Sampling

OURS, LOOP, JANUS = "tessella", "plain loop", "transformers Janus"
GUIDANCE = 5.0
PROMPT = 32  # tokens
TEXT_VOCAB = 512
BF16, FP32 = torch.bfloat16, torch.float32


def main() -> int:
    bench = Benchmark("generation", "Image tokens with guidance", ("tessella", "torch", "transformers"))
    sizes = {"layers": 8, "dim": 512, "heads": 8, "ffn_dim": 1408, "codes": 16384}
    lengths = {1: 576, 8: 256}  # images at a time: tokens of each
    if bench.quick:
        sizes = {"layers": 2, "dim": 64, "heads": 2, "ffn_dim": 176, "codes": 256}
        lengths = {1: 16, 8: 16}
    for images, length in lengths.items():
        model = unified(**sizes, image_length=length, text_vocab=TEXT_VOCAB).eval()
        llamas = {dtype: transformers_llama(model).eval().to(dtype) for dtype in (BF16, FP32)}
        peer = janus(**sizes, image_length=length).to(BF16)
        captions = [caption(number, PROMPT - 2) for number in range(images)]
        contenders = {
            f"{LOOP}, bf16": plain_loop(model, llamas[BF16], captions, sample=True),
            f"{JANUS}, bf16": janus_loop(peer, images),
            f"{OURS}, bf16": partial(ours, model, captions, BF16),
        }
        if images == 1:
            contenders[f"{LOOP}, fp32"] = plain_loop(model, llamas[FP32], captions, sample=True)
            contenders[f"{OURS}, fp32"] = partial(ours, model, captions, FP32)
        shape = (images, model.head.num_tokens)
        title = f"{images} image(s) of {shape[1]} tokens, guidance {GUIDANCE:g}"
        rows = bench.race(title, contenders, work=math.prod(shape), unit="tokens", rounds=2)
        for who, dtype, least in ((LOOP, "bf16", 2.0), (JANUS, "bf16", 2.0), (LOOP, "fp32", 1.3)):
            if f"{who}, {dtype}" in rows:
                ratio = bench.ratio(rows, f"{OURS}, {dtype}", f"{who}, {dtype}")
                bench.goal(f"{OURS} over {who}, {dtype}", ratio, at_least=least)
        whole = all(row.result.shape == shape for row in rows.values())
        bench.check("every contender writes whole images", whole, f"{len(rows)} times {shape[0]} x {shape[1]} ids")
        check(bench, model, llamas)
    return bench.finish()


def ours(model: UnifiedModel, captions: Sequence[str], dtype: torch.dtype) -> Tensor:
    sampling = Sampling(temperature=1.0, guidance=GUIDANCE)
    return write_images(model, captions, seeds=range(len(captions)), sampling=sampling, dtype=dtype)


def caption(number: int, length: int) -> str:
    generator = torch.Generator().manual_seed(number)
    return " ".join(f"w{i}" for i in torch.randint(8, TEXT_VOCAB, (length,), generator=generator).tolist())


def prompt(model: UnifiedModel, text: str) -> tuple[Tensor, Tensor]:
    """Ids with the caption and, of the same length, without it."""
    (segment,) = model.layout.image_prompt(text)
    (without,) = model.layout.image_prompt(None)
    conditional = torch.from_numpy(segment.ids)  # pyright: ignore[reportAttributeAccessIssue]
    unconditional = torch.full_like(conditional, int(without.ids[1]))  # pyright: ignore[reportAttributeAccessIssue]
    unconditional[[0, -1]] = conditional[[0, -1]]
    return conditional, unconditional


def plain_loop(model: UnifiedModel, llama: nn.Module, captions: Sequence[str], *, sample: bool) -> Callable[[], Tensor]:
    """(B, L) ids; rows 0, 2, ... of the batch are with caption, rows 1, 3, ... without."""
    from transformers import DynamicCache

    head = copy.deepcopy(model.head).to(next(llama.parameters()).dtype)
    classifier = head.weight().detach()
    tokens = torch.stack([row for text in captions for row in prompt(model, text)])

    @torch.no_grad()
    def run() -> Tensor:
        cache = DynamicCache()
        embeddings = llama.get_input_embeddings()(tokens)
        written = []
        for place in range(head.num_tokens):
            output = llama.model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
            logits = F.linear(output.last_hidden_state[:, -1], classifier)
            conditional, unconditional = logits[0::2], logits[1::2]
            guided = unconditional + GUIDANCE * (conditional - unconditional)
            ids = torch.multinomial(guided.softmax(-1), 1)[:, 0] if sample else guided.argmax(-1)
            written.append(ids)
            twice = ids.repeat_interleave(2)
            vectors = head.code_second(F.gelu(head.code_first(F.embedding(twice, head.codes))))
            embeddings = (vectors + head.embedding(twice) + head.place_embedding.weight[place])[:, None]
        return torch.stack(written, 1)

    return run


def janus(*, layers: int, dim: int, heads: int, ffn_dim: int, codes: int, image_length: int):
    """transformers' Janus with an LLM of the same sizes; what does not write images is as small as it goes."""
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        JanusVisionConfig,
        JanusVQVAEConfig,
        LlamaConfig,
    )

    llm = LlamaConfig(
        vocab_size=TEXT_VOCAB,
        hidden_size=dim,
        intermediate_size=ffn_dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
    )
    vision = JanusVisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, projection_dim=dim, num_image_tokens=image_length
    )
    vq = JanusVQVAEConfig(
        num_embeddings=codes,
        projection_dim=dim,
        image_token_embed_dim=dim,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
    )
    model = JanusForConditionalGeneration(JanusConfig(text_config=llm, vision_config=vision, vq_config=vq)).eval()
    model.generation_config.update(
        do_sample=True,
        top_k=0,
        guidance_scale=GUIDANCE,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        max_length=PROMPT + image_length,
    )
    model.generation_config.generation_kwargs = {"boi_token_id": 3}
    return model


def janus_loop(model, images: int) -> Callable[[], Tensor]:
    tokens = torch.randint(8, TEXT_VOCAB, (images, PROMPT), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = 1, 3
    mask = torch.ones_like(tokens)
    return lambda: model.generate(inputs=tokens, attention_mask=mask, generation_mode="image")


def check(bench: Benchmark, model: UnifiedModel, llamas: dict[torch.dtype, nn.Module]) -> None:
    """Ids at temperature 0 against transformers without a cache; and bfloat16 against float32."""
    texts = [caption(number, 1) for number in range(2)]  # one word, as long as no caption: both layouts have the prompt
    greedy = Sampling(temperature=0, guidance=GUIDANCE)
    for name, ids in (
        (OURS, write_images(model, texts, seeds=(0, 1), sampling=greedy)),
        (LOOP, plain_loop(model, llamas[FP32], texts, sample=False)()),
    ):
        behind = max(behind_best(model, llamas[FP32], text, row) for text, row in zip(texts, ids, strict=True))
        detail = f"guided logits of the ids lie at most {behind:.1e} below the largest"
        bench.check(f"{name} at temperature 0 and a forward pass without cache", behind < 1e-4, detail)
    block = model.embed_text(torch.stack(prompt(model, caption(0, PROMPT - 2)))).detach()
    full, half = (
        make_decoder(model.llm, rows=2, capacity=PROMPT, dtype=dtype).extend(block).float() for dtype in (FP32, BF16)
    )
    error = float((half - full).norm() / full.norm())
    bench.check("hidden states of tessella in bf16 and fp32", error < 0.03, f"relative difference {error:.1e}")


@torch.no_grad()
def behind_best(model: UnifiedModel, llama: nn.Module, text: str, ids: Tensor) -> float:
    """How far the guided logits of some ids (L,) lie below the largest ones, in one forward pass over all of them."""
    images = model.head.inputs(ids[None])[0, :-1]
    rows = torch.stack([torch.cat([model.embed_text(row), images]) for row in prompt(model, text)])
    hidden = llama.model(inputs_embeds=rows, use_cache=False).last_hidden_state[:, -len(ids) :]
    conditional, unconditional = F.linear(hidden, model.head.weight())
    guided = unconditional + GUIDANCE * (conditional - unconditional)
    return float((guided.amax(-1) - guided.gather(1, ids[:, None])[:, 0]).max())


if __name__ == "__main__":
    sys.exit(main())
