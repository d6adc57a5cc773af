"""Text tokenizer and vocabulary."""

import random

import pytest

from tessella.unified.text import ROLES, TextTokenizer, from_transformers, train_bpe
from tessella.unified.vocabulary import Vocabulary

TEXTS = [
    f"a {size} {colour} {shape}"
    for size in ("small", "large")
    for colour in ("red", "blue")
    for shape in ("dot", "bar")
]


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return train_bpe(TEXTS, 300)


def test_any_utf8_survives_the_round_trip(text):
    generator = random.Random(0)
    points = [*range(0x0, 0xD800), *range(0xE000, 0x110000)]
    samples = ["", " ", "\x00\r\n\t  x ", "<eos><boi>", "née 日本 😀 e\u0301", *TEXTS]
    samples += ["".join(map(chr, generator.choices(points, k=12))) for _ in range(300)]
    for sample in samples:
        assert text.decode(text.encode(sample)) == sample


def test_known_words_are_single_tokens_and_training_is_deterministic(text):
    assert len(text.encode("a small red dot")) == 4
    assert train_bpe(iter(TEXTS), 300).to_json() == text.to_json()


def test_text_never_becomes_a_special_token(text):
    specials = {text.special_id(role) for role in ROLES}
    assert len(specials) == len(ROLES)
    for role in ROLES:
        assert not specials & set(text.encode(f"a {text.special[role]} dot").tolist())


def test_decode_leaves_special_tokens_out(text):
    ids = [text.special_id("bos"), *text.encode("red dot"), text.special_id("eos")]
    assert text.decode(ids) == "red dot"


def test_saved_and_loaded_tokenizer_is_the_same(text, tmp_path):
    text.save(tmp_path / "text.json")
    loaded = TextTokenizer.load(tmp_path / "text.json")
    assert loaded.fingerprint == text.fingerprint
    assert loaded.vocab_size == text.vocab_size <= 300
    assert loaded.encode("<bos> red").tolist() == text.encode("<bos> red").tolist()
    assert [loaded.special_id(role) for role in ROLES] == [text.special_id(role) for role in ROLES]


def test_tokenizer_of_a_transformers_folder_gains_what_it_lacks(text, tmp_path):
    from transformers import PreTrainedTokenizerFast

    backend = TextTokenizer.from_json(text.to_json())._backend
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>").save_pretrained(tmp_path)
    loaded = from_transformers(str(tmp_path))
    assert loaded.special["eos"] == "<eos>"
    assert len({loaded.special_id(role) for role in ROLES}) == len(ROLES)
    assert loaded.encode("a small red dot").tolist() == text.encode("a small red dot").tolist()
    assert loaded.decode(loaded.encode("é <pad> ")) == "é <pad> "


def test_missing_transformers_folder_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="give a local folder"):
        from_transformers(str(tmp_path / "nowhere"))


def test_wrong_sizes_and_roles_are_refused(text, tmp_path):
    with pytest.raises(ValueError, match="use at least 262"):
        train_bpe(TEXTS, 200)
    with pytest.raises(ValueError, match="no special token 'mask'"):
        text.special_id("mask")
    with pytest.raises(ValueError, match="not named"):
        TextTokenizer(text._backend, {"bos": "<bos>"})
    with pytest.raises(ValueError, match="share a special token"):
        TextTokenizer(text._backend, {role: "<eos>" for role in ROLES})
    with pytest.raises(ValueError, match="schema 7"):
        TextTokenizer.from_json('{"schema": 7}')


def test_vocabulary_keeps_text_and_image_apart(text):
    vocabulary = Vocabulary(text, image_size=10)
    assert vocabulary.size == text.vocab_size + 10
    assert vocabulary.image_offset == text.vocab_size
    assert vocabulary.bos == text.special_id("bos")
