"""The unified model: initial weights, losses at the start, what is frozen, what is refused."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tessella.tokenizers import base
from tessella.tokenizers.base import ImageTokenizer
from tessella.unified.head_classifier import ClassifierHead, code_vectors
from tessella.unified.llm import PretrainedLLM, SmallLlama
from tessella.unified.model import UnifiedModel
from tessella.unified.readers import FeatureReader, IdReader
from tessella.unified.sequence import pack
from tessella.unified.text import train_bpe

LLM = SmallLlama(hidden_dim=32, num_layers=2, num_heads=2, ffn_dim=48, max_length=64, text_vocab_size=300)
TEXT = train_bpe(["a red dot", "a blue dot", "what colour?", "red", "blue"], 300)


class LookupTokenizer(ImageTokenizer):
    """A codebook and nothing else."""

    def __init__(self, codes: int = 40, length: int = 6, width: int = 4, seed: int = 0, places: bool = False):
        super().__init__()
        self.image_size, self.vocab_size, self.latent_dim = 8, codes, width
        self.num_latents, self.step_lengths = length, (1,) * length
        generator = torch.Generator().manual_seed(seed)
        self.codebook = nn.Parameter(torch.randn(codes, width, generator=generator))
        self.places = torch.arange(length)[:, None] if places else torch.zeros(length, 1)

    def dequantize(self, ids: Tensor) -> Tensor:
        return self.codebook[ids] + self.places[: ids.shape[1]]


def build(tokenizer=None, seed=0, llm=LLM, text=TEXT, reader=FeatureReader, **head):
    tokenizer = LookupTokenizer() if tokenizer is None else tokenizer
    head = partial(ClassifierHead, **head)
    return UnifiedModel(tokenizer=tokenizer, llm=llm, text=text, head=head, reader=reader, seed=seed)


def mixed_batch(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokenizer, layout = model.tokenizer, model.layout
    ids = torch.randint(0, tokenizer.vocab_size, (4, tokenizer.num_tokens), generator=generator)
    features = torch.randn(4, tokenizer.num_features, tokenizer.feature_dim, generator=generator)
    documents = [
        layout.text_to_image("a red dot", 0),
        layout.question_answering([("what colour?", "red"), ("what colour?", "blue")], 1),
        layout.captioning("a blue dot", 2),
        layout.text_to_image(None, 3),
    ]
    return documents, ids, features


def test_llm_depends_on_the_seed_alone():
    first = build().llm_digest()
    torch.manual_seed(99)
    assert build(LookupTokenizer(codes=90, length=9, width=3), code_logits=False).llm_digest() == first
    assert build(seed=1).llm_digest() != first


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("code_logits", [True, False])
def test_losses_start_at_the_log_of_their_vocabularies(code_logits):
    model = build(code_logits=code_logits)
    documents, ids, features = mixed_batch(model)
    losses = model(pack(documents, ids=ids, features=features))
    assert losses.image.item() == pytest.approx(math.log(40), abs=0.1)
    assert losses.text.item() == pytest.approx(math.log(TEXT.vocab_size), abs=0.1)
    assert losses.num_image == 12
    assert losses.num_text == sum(len(TEXT.encode(text)) + 1 for text in ("red", "blue", "a blue dot"))


def test_packed_loss_is_the_weighted_mean_of_single_documents():
    model = build()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    documents, ids, features = mixed_batch(model)
    together = model(pack(documents, ids=ids, features=features))
    single = [model(pack([document], ids=ids, features=features)) for document in documents]
    image = sum(part.image * part.num_image for part in single) / together.num_image
    text = sum(part.text * part.num_text for part in single) / together.num_text
    torch.testing.assert_close(together.image, image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.text, text, atol=1e-5, rtol=1e-5)
    parts = [
        model(pack([document], ids=ids, features=features), num_text=together.num_text, num_image=together.num_image)
        for document in documents
    ]
    torch.testing.assert_close(sum(part.image for part in parts), together.image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sum(part.text for part in parts), together.text, atol=1e-5, rtol=1e-5)


def test_tokenizer_stays_frozen_and_outside():
    tokenizer = LookupTokenizer()
    model = build(tokenizer)
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    assert not any(p is q for p in model.parameters() for q in tokenizer.parameters())
    assert model.tokenizer is tokenizer
    assert not any("tokenizer" in name for name in model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    documents, ids, features = mixed_batch(model)
    for _ in range(3):
        losses = model(pack(documents, ids=ids, features=features))
        optimizer.zero_grad()
        (losses.text + losses.image).backward()
        optimizer.step()
    model.train()
    assert not tokenizer.training
    assert all(p.grad is None and not p.requires_grad for p in tokenizer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


def test_every_parameter_learns_from_a_mixed_batch():
    model = build()
    documents, ids, features = mixed_batch(model)
    losses = model(pack(documents, ids=ids, features=features))
    (losses.text + losses.image).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_state_dict_brings_a_model_back():
    model, other = build(), build(seed=1)
    other.load_state_dict(model.state_dict())
    documents, ids, features = mixed_batch(model)
    batch = pack(documents, ids=ids, features=features)
    assert torch.equal(model(batch).image, other(batch).image)


def test_inputs_of_few_and_many_ids_agree():
    head = ClassifierHead(tokenizer=LookupTokenizer(), hidden_dim=8)
    ids = torch.randint(0, 40, (10, 6), generator=torch.Generator().manual_seed(0))
    many = head.inputs(ids)
    few = torch.cat([head.inputs(row[None]) for row in ids])
    torch.testing.assert_close(many, few)
    torch.testing.assert_close(many, head.table()[ids] + head.place_embedding.weight)


def test_code_vectors_have_unit_mean_square_in_order_of_their_codes():
    tokenizer = LookupTokenizer(codes=41)
    codes = code_vectors(tokenizer)
    assert codes.shape == (41, 4)
    assert codes.square().mean().item() == pytest.approx(1)
    torch.testing.assert_close(codes / codes[0, 0], tokenizer.codebook / tokenizer.codebook[0, 0])


def test_a_model_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        model = build(LookupTokenizer())
    assert all(p.is_meta for p in model.head.parameters())


def test_tokenizers_this_head_cannot_write_are_refused():
    continuous, scales, codes = LookupTokenizer(), LookupTokenizer(), LookupTokenizer()
    continuous.vocab_size = None
    scales.step_lengths = (1, 5)
    codes.codes_per_position = 2
    for tokenizer, message in (
        (continuous, "continuous latents"),
        (scales, "steps of 1, 5"),
        (codes, "2 codes per position"),
        (LookupTokenizer(places=True), "different vectors in different places"),
    ):
        with pytest.raises(ValueError, match=message):
            build(tokenizer)
    fewer = LookupTokenizer()
    fewer.dequantize = lambda ids: torch.zeros(len(ids), 2, 4)
    with pytest.raises(ValueError, match="makes 2 latents from 6 ids"):
        build(fewer)


def test_ids_are_read_as_they_are_written():
    model = build(reader=IdReader)
    assert model.adapter.reads == "ids"
    assert not list(model.adapter.parameters())
    assert not any(name.startswith("adapter") for name in model.state_dict())
    _, ids, _ = mixed_batch(model)
    torch.testing.assert_close(model.adapter(ids), model.head.inputs(ids))
    documents = [model.layout.captioning("a blue dot", 2), model.layout.text_to_image("a red dot", 0)]
    losses = model(pack(documents, ids=ids, features=ids))
    losses.text.backward()
    assert model.head.embedding.weight.grad is not None


@pytest.mark.parametrize("reader", [FeatureReader, IdReader])
def test_a_model_reads_images_as_its_batches_hold_them(reader):
    class PixelTokenizer(LookupTokenizer):
        def encode(self, images):
            ids = images.flatten(1)[:, :6].mul(40).long().clamp_max(39)
            return base.Encoding(self.dequantize(ids), ids)

    model = build(PixelTokenizer(), reader=reader)
    images = torch.rand(3, 3, 8, 8)
    ids = model.tokenizer.encode(images).ids
    expected = ids if reader is IdReader else model.tokenizer.codebook[ids]
    assert torch.equal(model.read(images), expected)
    assert model.adapter(model.read(images)).shape == (3, 6, 32)


def test_documents_longer_than_the_llm_are_refused():
    model = build()
    with pytest.raises(ValueError, match="exceeds the LLM's 64 positions"):
        model(pack([model.layout.captioning("long " * 60, 0)], features=torch.zeros(1, 6, 4)))


def test_llm_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"use 32 \(llm.hidden_dim\)"):
        SmallLlama(hidden_dim=30, num_layers=1, num_heads=2, ffn_dim=8, max_length=8, text_vocab_size=300).build(300)


def test_residual_projections_start_smaller():
    llm = SmallLlama(hidden_dim=64, num_layers=8, num_heads=2, ffn_dim=96, max_length=8, text_vocab_size=300).build(300)
    layer = llm.model.layers[3]
    assert layer.self_attn.o_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert layer.mlp.gate_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_pretrained_llm_from_a_folder_gains_special_tokens(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    plain = train_bpe(["a red dot"], 280)
    LlamaForCausalLM(LlamaConfig(vocab_size=10, **sizes)).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=plain._backend, eos_token="<eos>").save_pretrained(tmp_path)
    llm = PretrainedLLM(name=str(tmp_path))
    text = llm.text_tokenizer([])
    model = build(llm=llm, text=text)
    assert model.llm.get_input_embeddings().num_embeddings >= text.vocab_size > 10
    documents, ids, features = mixed_batch(model)
    assert torch.isfinite(model(pack(documents, ids=ids, features=features)).text)


def test_llms_that_cannot_be_used_are_refused(tmp_path):
    from transformers import BloomConfig, BloomForCausalLM, Gemma2Config, Gemma2ForCausalLM

    with pytest.raises(ValueError, match="give a local folder"):
        PretrainedLLM(name=str(tmp_path / "nowhere")).build(300)

    class Given:
        def __init__(self, make):
            self.build = make

    def bloom(size):
        return BloomForCausalLM(BloomConfig(vocab_size=size, hidden_size=16, n_layer=1, n_head=2))

    def gemma(size):
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
        return Gemma2ForCausalLM(Gemma2Config(vocab_size=size, head_dim=8, num_key_value_heads=2, **shape))

    with pytest.raises(ValueError, match="attention interface"):
        build(llm=Given(bloom))
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        build(llm=Given(gemma))
