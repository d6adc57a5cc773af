"""Attention inside documents against the transformers model run on each document alone."""

import pytest
import torch

from tessella.unified import attention
from tessella.unified.attention import ATTENTION, Packing, packed_attention, register

LENGTHS = [5, 9, 30, 31, 7, 1, 2, 30]


def small_llm(kind: str):
    import transformers

    torch.manual_seed(0)
    shape = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        )
        return transformers.GPT2LMHeadModel(config)
    if kind == "qwen2":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shape, num_key_value_heads=2))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, num_key_value_heads=4))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("fused_from", [1, 1000])
def test_packed_documents_equal_separate_ones(kind, fused_from, monkeypatch):
    monkeypatch.setattr(attention, "_FUSED_FROM", fused_from)
    register()
    llm = small_llm(kind)
    for parameter in llm.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    documents = [torch.randn(1, length, 32) for length in LENGTHS]
    weight = torch.randn(1, sum(LENGTHS), 32)

    def run(forward):
        inputs = torch.cat(documents, 1).requires_grad_()
        llm.zero_grad()
        hidden = forward(inputs)
        (hidden * weight).sum().backward()
        gradients = [p.grad.clone() for p in llm.base_model.parameters() if p.grad is not None]
        return hidden.detach(), inputs.grad, gradients

    def separate(inputs):
        parts = inputs.split(LENGTHS, 1)
        return torch.cat([llm.base_model(inputs_embeds=part, use_cache=False).last_hidden_state for part in parts], 1)

    def packed(inputs):
        positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
        output = llm.base_model(inputs_embeds=inputs, position_ids=positions, use_cache=False, packing=Packing(LENGTHS))
        return output.last_hidden_state

    llm.set_attn_implementation("eager")
    expected = run(separate)
    llm.set_attn_implementation(ATTENTION)
    for actual, wanted in zip(run(packed), expected, strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)


def test_every_token_is_in_exactly_one_group():
    packing = Packing(LENGTHS)
    assert len(packing.groups) > 2
    padded = torch.cat([group.rows for group in packing.groups])
    assert torch.equal(padded[packing.inverse], torch.arange(sum(LENGTHS)))
    real = sum(len(group.rows) - len(group.padding) for group in packing.groups)
    assert real == sum(LENGTHS)
    assert all(len(group.padding) <= 0.2 * len(group.rows) for group in packing.groups)


def test_gradient_of_plain_attention_is_that_of_its_formula():
    torch.manual_seed(0)
    query, key, value = (torch.randn(9, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    packing = Packing([4, 2, 3])

    def formula(query, key, value):
        parts = []
        for q, k, v in zip(*(x.split([4, 2, 3]) for x in (query, key, value)), strict=True):
            scores = torch.einsum("ihd,jhd->hij", q, k) * 0.5
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            parts.append(torch.einsum("hij,jhd->ihd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v))
        return torch.cat(parts)

    weight = torch.randn(9, 2, 4, dtype=torch.float64)
    expected = torch.autograd.grad((formula(query, key, value) * weight).sum(), (query, key, value))
    output = attention.attend(query, key, value, packing, 0.5)
    actual = torch.autograd.grad((output * weight).sum(), (query, key, value))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)  # the softmax runs in float32


def test_a_model_that_drops_the_packing_is_refused():
    heads = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="neither a packing nor a mask"):
        packed_attention(torch.nn.Identity(), heads, heads, heads, None)
    with pytest.raises(ValueError, match="sliding window of 2"):
        packed_attention(torch.nn.Identity(), heads, heads, heads, None, packing=Packing([3]), sliding_window=2)
    with pytest.raises(ValueError, match="soft-capped"):
        packed_attention(torch.nn.Identity(), heads, heads, heads, None, packing=Packing([3]), softcap=30.0)
