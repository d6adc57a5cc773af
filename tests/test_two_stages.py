"""The two stages of a 1D tokenizer by command: a proxy, its codes, then pixels."""

import json

import torch
from safetensors.torch import load_file


def test_two_stages_train_one_after_the_other(tessella, tiny, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vq = trained / "runs/vq"
    codes = ("+recipe.tokenizer.loss.terms.proxy=1", "recipe.tokenizer.loss.mse_weight=0")
    stage1 = ("tokenizer=nano/titok_stage1", f"tokenizer.proxy.folder={vq}")
    done = tessella("train", *tiny, *stage1, *codes, "out=runs/stage1")
    assert done.code == 0, done.err
    done = tessella("train", *tiny, "tokenizer=nano/titok_stage2", "warm_start=runs/stage1", "out=runs/stage2")
    assert done.code == 0, done.err
    first, second = (load_file(f"runs/stage{i}/weights.safetensors") for i in (1, 2))
    proxy = load_file(vq / "weights.safetensors")
    for key, value in second.items():
        if key.startswith(("encoder.", "quantizer.")):
            assert torch.equal(value, first[key]), key
    assert not torch.equal(second["decoder.head.logits.layers.0.weight"], first["decoder.head.layers.0.weight"])
    for key, value in proxy.items():
        assert torch.equal(first[f"proxy.{key}"], value), key
    assert "warm_start" in json.loads((tmp_path / "runs/stage2/run.json").read_text())["inputs"]
    assert "rec/psnr" in json.loads((tmp_path / "runs/stage2/metrics.json").read_text())["metrics"]
