"""Official layouts: strict import, exact export, and errors that name the key."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tessella.tokenizers.checkpoints import (
    Conversion,
    Layout,
    export_weights,
    import_weights,
    read_official,
)

SQUARE = Conversion(lambda tensor: tensor[:, :, 0, 0], lambda tensor: tensor[:, :, None, None])


def module() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net.register_buffer("counts", torch.arange(3.0))
    return net


LAYOUT = Layout(
    {"stem": "0", "head.out": "1"}, unused=("statistics", "old."), conversions={"0.weight": SQUARE}, own=("counts",)
)


def official() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "stem.weight": (4, 3, 1, 1),
        "stem.bias": (4,),
        "head.out.weight": (2, 4),
        "head.out.bias": (2,),
        "statistics": (5,),
        "old.layer.weight": (1,),
    }
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_import_then_export_gives_back_every_tensor():
    net, weights = module(), official()
    unused = import_weights(net, weights, LAYOUT)
    assert unused.keys() == {"statistics", "old.layer.weight"}
    assert torch.equal(net[0].weight, weights["stem.weight"][:, :, 0, 0])
    assert torch.equal(net.counts, torch.arange(3.0))
    exported = export_weights(net, LAYOUT, unused)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)


def test_one_tensor_of_ours_may_hold_columns_of_several():
    net = nn.Embedding(4, 5)
    layout = Layout({}, columns={"semantic": ("weight", 0, 3), "pixel": ("weight", 3, 5)})
    weights = {"semantic": torch.randn(4, 3), "pixel": torch.randn(4, 2)}
    assert import_weights(net, weights, layout) == {}
    assert torch.equal(net.weight, torch.cat([weights["semantic"], weights["pixel"]], 1))
    exported = export_weights(net, layout)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)
    with pytest.raises(ValueError, match=r"pixel \(4, 3\) \(needed: \(4, 2\)\)"):
        import_weights(net, weights | {"pixel": torch.randn(4, 3)}, layout)


def test_one_official_tensor_may_hold_several_of_ours():
    net = nn.ModuleDict({name: nn.Linear(3, 4) for name in ("q", "k", "v")})
    layout = Layout({}, stacked={f"qkv.{kind}": tuple(f"{name}.{kind}" for name in net) for kind in ("weight", "bias")})
    weights = {"qkv.weight": torch.randn(12, 3), "qkv.bias": torch.randn(12)}
    assert import_weights(net, weights, layout) == {}
    assert torch.equal(net["k"].weight, weights["qkv.weight"][4:8])
    assert torch.equal(net["v"].bias, weights["qkv.bias"][8:])
    exported = export_weights(net, layout)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[key], weights[key]) for key in weights)
    with pytest.raises(ValueError, match=r"qkv\.bias \(9,\) \(needed: \(12,\)\)"):
        import_weights(net, weights | {"qkv.bias": torch.zeros(9)}, layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("stem.bias"), r"1 missing: stem\.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda w: w.update({"head.out.bias": torch.zeros(3)}), r"head\.out\.bias \(3,\) \(needed: \(2,\)\)"),
        (lambda w: w.update({"stem.weight": torch.zeros(4, 3)}), r"stem\.weight \(4, 3\) \(needed: \(4, 3, 1, 1\)\)"),
    ],
)
def test_a_wrong_key_is_named_and_nothing_is_loaded(change, message):
    net, weights = module(), official()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        import_weights(net, weights, LAYOUT)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_a_layout_must_name_every_key_once():
    with pytest.raises(ValueError, match=r"no official name to 1\.weight"):
        import_weights(module(), official(), Layout({"stem": "0"}, own=("counts",)))
    twins = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="same official name"):
        export_weights(twins, Layout({"x.": "a.", "x": "b"}))


def test_files_are_read_without_running_code(tmp_path):
    weights = official()
    save_file(weights, tmp_path / "model.safetensors")
    torch.save({"model": weights}, tmp_path / "model.pt")
    assert read_official(tmp_path / "model.safetensors").keys() == weights.keys()
    assert read_official(tmp_path / "model.pt")["model"].keys() == weights.keys()
    assert read_official(tmp_path).keys() == weights.keys()  # safetensors before pickles
    torch.save({"model": print}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"code\.pt cannot be read as a file of tensors alone"):
        read_official(tmp_path / "code.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        read_official(tmp_path / "list.pt")


def test_shards_are_one_model(tmp_path):
    weights = official()
    for number, key in enumerate(weights):
        save_file({key: weights[key]}, tmp_path / f"model-{number}-of-6.safetensors")
    assert read_official(tmp_path).keys() == weights.keys()


@pytest.mark.parametrize(("name", "message"), [("absent.pt", "does not exist"), ("notes.txt", "no file of weights")])
def test_unreadable_paths_are_named(tmp_path, name, message):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=f"{name} {message}|{name} is {message}"):
        read_official(tmp_path / name)
    with pytest.raises(ValueError, match="must hold one file of weights"):
        read_official(tmp_path)
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable safetensors"):
        read_official(tmp_path / "damaged.safetensors")
