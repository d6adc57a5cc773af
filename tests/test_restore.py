"""A run folder holds all it needs: what its first weights came from may be gone."""

import shutil

import pytest


@pytest.fixture
def downloads(tmp_path):
    """Folders as the hub gives them: an LLM with its text tokenizer, and a SigLIP."""
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    from tessella.unified.text import train_bpe

    folder = tmp_path / "downloads"
    llm = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    LlamaForCausalLM(LlamaConfig(vocab_size=10, tie_word_embeddings=True, **llm)).save_pretrained(folder / "llm")
    text = PreTrainedTokenizerFast(tokenizer_object=train_bpe(["a red dot"], 280)._backend, eos_token="<eos>")
    text.save_pretrained(folder / "llm")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    tower = SiglipVisionConfig(image_size=64, patch_size=16, hidden_act="gelu", vision_use_head=False, **sizes)
    SiglipVisionModel(tower).save_pretrained(folder / "siglip")
    return folder


def test_pretrained_parts_are_not_fetched_again(downloads, workshop, tessella, tiny):
    siglip = (
        "{_target_:tessella.tokenizers.siglip.SigLIP,image_size:64,patch_size:16,hidden_size:8,num_layers:1,"
        f"num_heads:2,mlp_size:12,pretrained:'{downloads / 'siglip'}'}}"
    )
    small = [override for override in tiny if not override.startswith("llm.")]
    parts = ["tokenizer=trained_pair", "tokenizer.generation.folder=runs/vq", "~tokenizer.understanding"]
    parts += [f"+tokenizer.understanding={siglip}", "llm=pretrained", f"llm.name='{downloads / 'llm'}'"]
    train = ["train", "phase=unified", *parts, *small, "recipe.unified.steps=2", "out=runs/whole"]
    assert tessella(*train).code == 0
    first = (workshop / "runs/whole/metrics.json").read_bytes()

    shutil.rmtree(downloads)
    shutil.rmtree(workshop / "runs/vq")
    assert str(downloads) not in (workshop / "runs/whole/model.yaml").read_text()
    evaluation = [override for override in small if override.startswith("evaluation.")]
    outcome = tessella("evaluate", "run=runs/whole", *evaluation)
    assert outcome.code == 0, outcome.err
    assert (workshop / "runs/whole/metrics.json").read_bytes() == first
    again = tessella("evaluate", "run=runs/whole", *evaluation)  # from what the last evaluation wrote
    assert again.code == 0, again.err
    sampled = tessella("sample", "a red circle", "run=runs/whole", "out=drawn")
    assert sampled.code == 0, sampled.err
