"""Generation and answering: cached == uncached, a batch == one by one, guidance 1 == none."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tessella.tokenizers.base import ImageTokenizer
from tessella.unified import decoder_llama, generate
from tessella.unified.decoder import CachedDecoder
from tessella.unified.decoder_llama import LlamaDecoder, make_decoder
from tessella.unified.generate import answer, caption_nll, write_images
from tessella.unified.head_classifier import ClassifierHead
from tessella.unified.model import UnifiedModel
from tessella.unified.sampling import Sampling
from tessella.unified.sequence import Text, pack
from tessella.unified.text import train_bpe

CAPTIONS = ["a red dot", None, "a very very blue dot on grey", "dot"]
QUESTIONS = [["what colour?", "is it there?"], [], ["why?"], ["what is there, and what colour is the dot?"]]
TEXT = train_bpe([caption for caption in CAPTIONS if caption] + ["what colour?"], 290)


class LookupTokenizer(ImageTokenizer):
    """A codebook and nothing else."""

    def __init__(self):
        super().__init__()
        self.image_size, self.vocab_size, self.latent_dim = 8, 30, 4
        self.num_latents, self.step_lengths = 5, (1,) * 5
        self.codebook = nn.Parameter(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)))

    def dequantize(self, ids: Tensor) -> Tensor:
        return self.codebook[ids]


class TinyLLM:
    """A builder of one of several architectures, with weights far from their initial scale."""

    def __init__(self, kind):
        self.kind = kind

    def build(self, vocab_size):
        import transformers

        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        sizes |= {"vocab_size": vocab_size, "max_position_embeddings": 80, "num_key_value_heads": 2}
        if self.kind == "gpt2":
            config = transformers.GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=80)
            return transformers.GPT2LMHeadModel(config)
        if self.kind == "qwen2":
            return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes))
        if self.kind == "qwen3":
            return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=8, **sizes))
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def build(kind="llama"):
    model = UnifiedModel(
        tokenizer=LookupTokenizer(), llm=TinyLLM(kind), text=TEXT, head=partial(ClassifierHead), seed=0
    ).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3", "gpt2"])
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def llama():
    return build()


@pytest.fixture(scope="module")
def features():
    return torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(1))


def image_logits(model, caption, ids):
    """Logits of the next id after a prefix of ids, from the whole document without a cache."""
    padded = torch.cat([ids, ids.new_zeros(1, model.head.num_tokens - ids.shape[1])], 1)
    batch = pack([model.layout.text_to_image(caption, 0)], ids=padded)
    hidden = model.hidden(batch, batch.image_at[ids.shape[1], None])[0]
    return hidden @ model.head.weight().t()


@torch.no_grad()
def written_without_cache(model, caption, guidance):
    ids = torch.zeros(1, 0, dtype=torch.int64)
    for _ in range(model.head.num_tokens):
        logits = image_logits(model, caption, ids)
        if guidance != 1:
            uncond = image_logits(model, None, ids)
            logits = uncond + guidance * (logits - uncond)
        ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
    return ids


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_with_a_cache_equal_images_without(model, guidance):
    ids = write_images(model, CAPTIONS, seeds=range(4), sampling=Sampling(guidance=guidance))
    expected = torch.cat([written_without_cache(model, caption, guidance) for caption in CAPTIONS])
    assert torch.equal(ids, expected)
    assert len(set(map(tuple, ids.tolist()))) > 1


@torch.no_grad()
def answered_without_cache(model, features, question, max_tokens):
    ids = []
    for _ in range(max_tokens):
        document = [*model.layout.read_prompt(0), *model.layout.question(question)]
        last = torch.tensor([*ids, 0]).numpy()  # the last token of a document is only a target
        batch = pack([[*document, Text(last)]], features=features[None])
        hidden = model.hidden(batch, torch.tensor([batch.num_tokens - 1]))[0]
        ids.append(int((hidden @ model.text_weight.t())[: TEXT.vocab_size].argmax()))
        if ids[-1] == model.vocabulary.eos:
            return TEXT.decode(ids[:-1])
    return TEXT.decode(ids)


def test_answers_with_a_cache_equal_answers_without(model, features):
    answers = answer(model, features, QUESTIONS, max_tokens=6)
    assert answers == [
        [answered_without_cache(model, image, question, 6) for question in questions]
        for image, questions in zip(features, QUESTIONS, strict=True)
    ]
    assert len({text for texts in answers for text in texts}) > 1


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_fast_and_generic_decoding_agree(kind):
    model = build(kind)
    torch.manual_seed(0)
    prompt, step = torch.randn(3, 4, 32), torch.randn(5, 1, 32)
    valid = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    order = torch.tensor([2, 0, 1, 1, 0])
    outputs = []
    for decoder_type in (LlamaDecoder, CachedDecoder):
        with torch.no_grad():
            decoder = decoder_type(model.llm, rows=3, capacity=12)
            first = decoder.extend(prompt, valid)[valid]
            decoder.select(order)
            outputs.append((first, decoder.extend(step), decoder.extend(step.repeat(1, 3, 1)), decoder.extend(step)))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-4)


def test_the_generic_decoder_writes_the_same_images(llama, features, monkeypatch):
    sampling = Sampling(temperature=1.0, guidance=2.0)
    fast = write_images(llama, CAPTIONS, seeds=range(4), sampling=sampling), answer(llama, features, QUESTIONS)
    monkeypatch.setattr(decoder_llama, "is_llama_like", lambda llm: False)
    assert type(make_decoder(llama.llm, rows=1, capacity=4)) is CachedDecoder
    assert torch.equal(write_images(llama, CAPTIONS, seeds=range(4), sampling=sampling), fast[0])
    assert answer(llama, features, QUESTIONS) == fast[1]
    with pytest.raises(ValueError, match="type of its weights"):
        make_decoder(llama.llm, rows=1, capacity=4, dtype=torch.bfloat16)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_of_prompts_equals_one_by_one(model, temperature):
    sampling = Sampling(temperature=temperature, guidance=2.0)
    together = write_images(model, CAPTIONS, seeds=[4, 5, 6, 7], sampling=sampling)
    alone = [write_images(model, [CAPTIONS[i]], seeds=[4 + i], sampling=sampling) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_answers_do_not_depend_on_what_is_asked_beside_them(llama, features):
    together = answer(llama, features, QUESTIONS)
    assert together == answer(llama, features, QUESTIONS, rows=1)
    for image, questions, answers in zip(features, QUESTIONS, together, strict=True):
        assert [answer(llama, image[None], [[question]])[0][0] for question in questions] == answers
    assert answer(llama, features, [[], [], [], []]) == [[], [], [], []]


def test_guidance_one_is_no_guidance(llama, monkeypatch):
    sampling = Sampling(temperature=1.0, guidance=1.0)
    rows = []
    monkeypatch.setattr(
        generate, "make_decoder", lambda *args, **kwargs: rows.append(kwargs["rows"]) or make_decoder(*args, **kwargs)
    )
    plain = write_images(llama, CAPTIONS, seeds=range(4), sampling=sampling)
    nearly = write_images(llama, CAPTIONS, seeds=range(4), sampling=Sampling(temperature=1.0, guidance=1.0 + 1e-9))
    assert rows == [4, 8]
    assert torch.equal(plain, nearly)


def test_seeds_decide_sampled_images(llama):
    sampling = Sampling(temperature=3.0, guidance=1.0)
    first = write_images(llama, ["a red dot"] * 3, seeds=[0, 1, 0], sampling=sampling)
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    with pytest.raises(ValueError, match="1 captions came with 2 seeds"):
        write_images(llama, ["a red dot"], seeds=[0, 1], sampling=sampling)


def test_progress_is_reported_after_every_id(llama):
    seen = []
    write_images(llama, ["dot"], seeds=[0], sampling=Sampling(), progress=lambda *step: seen.append(step))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_bfloat16_products_stay_near(llama):
    with torch.no_grad():
        decoders = [make_decoder(llama.llm, rows=2, capacity=6, dtype=dtype) for dtype in (None, torch.bfloat16)]
        torch.manual_seed(0)
        block = torch.randn(2, 5, 32)
        full, half = (decoder.extend(block).float() for decoder in decoders)
    assert half.dtype == torch.float32
    assert (full - half).norm() / full.norm() < 0.05


def test_caption_likelihood_equals_a_sum_over_single_tokens(llama, features):
    captions = ["a red dot", "dot", "é 日本", "a very very blue dot"]
    scores = caption_nll(llama, features, captions, images=3)
    for image, caption, score in zip(features, captions, scores, strict=True):
        total = 0.0
        targets = [*TEXT.encode(caption).tolist(), llama.vocabulary.eos]
        for count, target in enumerate(targets):
            document = [*llama.layout.read_prompt(0), Text(torch.tensor([*targets[:count], 0]).numpy())]
            with torch.no_grad():
                batch = pack([document], features=image[None])
                hidden = llama.hidden(batch, torch.tensor([batch.num_tokens - 1]))[0]
            total -= (hidden @ llama.text_weight.t()).log_softmax(-1)[target].item()
        assert score.item() == pytest.approx(total, rel=1e-4)


def test_inputs_that_do_not_match_are_refused(llama, features):
    with pytest.raises(ValueError, match="4 images came with 1 lists"):
        answer(llama, features, [["why?"]])
    with pytest.raises(ValueError, match="4 images came with 1 captions"):
        caption_nll(llama, features, ["dot"])
    with pytest.raises(ValueError, match="question is empty"):
        answer(llama, features[:1], [[""]])
    with pytest.raises(ValueError, match="exceeds the LLM's 80 positions"):
        write_images(llama, ["long " * 80], seeds=[0], sampling=Sampling())
