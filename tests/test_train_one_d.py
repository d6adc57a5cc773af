"""One-dimensional tokenizers through the commands: both recipes, the metrics of prefixes, the LLM around them."""

import json

import torch

from tessella.experiments.build import trained as load_trained

SMALL = ("trainer.checkpoint_seconds=1000",)


def read(folder, name="metrics.json"):
    return json.loads((folder / name).read_text())


def test_two_stages_train_and_the_llm_draws_from_prefixes(workshop, tessella, tiny):
    assert (
        tessella(
            *("train", *tiny, *SMALL, "tokenizer=nano/one_d_piece_codes", "tokenizer.proxy.folder=runs/vq"),
            *("recipe.tokenizer.loss.mse_weight=0.0", "++recipe.tokenizer.loss.terms.proxy=16.0", "out=runs/codes"),
        ).code
        == 0
    )
    assert (
        tessella(
            *("train", *tiny, *SMALL, "tokenizer=nano/one_d_piece_pixels", "tokenizer.first.folder=runs/codes"),
            "out=runs/pixels",
        ).code
        == 0
    )
    codes, pixels = load_trained("runs/codes"), load_trained("runs/pixels")
    assert read(workshop / "runs/codes", "run.json")["inputs"]["proxy"]["folder"].endswith("runs/vq")
    for part in ("encoder", "quantizer"):
        before, after = codes.get_submodule(part).state_dict(), pixels.get_submodule(part).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(codes.proxy.decoder.stem.weight, pixels.pixels.stem.weight)
    measured = read(workshop / "runs/pixels")["metrics"]
    assert measured["rec/psnr/k=32"]["value"] == measured["rec/psnr"]["value"]
    assert {f"rec/{name}/k={k}" for name in ("psnr", "ssim") for k in (1, 2, 4, 8, 16, 24, 32)} <= measured.keys()
    assert "rec/oracle/colour/k=8" in measured

    assert (
        tessella(
            *("train", *tiny, *SMALL, "phase=unified", "reader=ids", "tokenizer=runs/pixels", "out=runs/unified_one_d")
        ).code
        == 0
    )
    drawn = read(workshop / "runs/unified_one_d")["metrics"]
    assert {f"gen/oracle/{name}/k=8" for name in ("colour", "place", "size", "shape", "all")} <= drawn.keys()
    assert "sampling" in drawn["gen/oracle/all/k=8"]


def test_a_tokenizer_without_prefixes_has_no_metrics_of_them(trained):
    names = read(trained / "runs/vq")["metrics"].keys() | read(trained / "runs/unified")["metrics"].keys()
    assert not [name for name in names if "k=" in name]
