"""Attention inside documents against the transformers model run on each document alone."""

import pytest
import torch

from tessella.unified import attention
from tessella.unified.attention import ATTENTION, Packing, packed_attention, register
from tessella.unified.llama_stack import is_llama_like, run_layers

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


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("theta", ["default", "llama3"])
def test_layers_written_out_equal_the_model_itself(kind, theta):
    register()
    llm = small_llm(kind)
    if theta == "llama3":
        scaling = {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
        llm.config.rope_parameters |= {"rope_type": "llama3", **scaling}
        llm = type(llm)(llm.config)
    llm.set_attn_implementation(ATTENTION)
    assert is_llama_like(llm)
    for parameter in llm.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    stream = torch.randn(sum(LENGTHS), 32)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    wanted = torch.tensor([3, 40, 12, 88, 5])
    weight = torch.randn(5, 32)

    def run(forward):
        inputs = stream.clone().requires_grad_()
        llm.zero_grad()
        hidden = forward(inputs)
        (hidden * weight).sum().backward()
        gradients = {name: p.grad.clone() for name, p in llm.base_model.named_parameters() if p.grad is not None}
        return hidden.detach(), inputs.grad, gradients

    def model(inputs):
        arguments = {"position_ids": positions[None], "use_cache": False, "packing": Packing(LENGTHS)}
        return llm.base_model(inputs_embeds=inputs[None], **arguments).last_hidden_state[0][wanted]

    expected = run(model)
    actual = run(lambda inputs: run_layers(llm, inputs, positions, Packing(LENGTHS), wanted))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)

    with torch.autocast("cpu", torch.bfloat16):
        half = run(lambda inputs: run_layers(llm, inputs, positions, Packing(LENGTHS), wanted))
    assert (half[0].float() - expected[0]).norm() < 0.03 * expected[0].norm()
    assert (half[1] - expected[1]).norm() < 0.05 * expected[1].norm()


def test_other_models_are_run_as_they_are():
    assert not is_llama_like(small_llm("gpt2"))
    llm = small_llm("qwen2")
    llm.config.use_sliding_window = True
    assert not is_llama_like(llm)


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
