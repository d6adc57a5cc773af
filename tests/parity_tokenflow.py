"""TokenFlow's quantizers, encoders, decoders, teachers and losses against its release."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessella.tokenizers import official_tokenflow as official
from tessella.tokenizers.checkpoints import Layout, export_weights
from tessella.tokenizers.official_tokenflow_names import teacher_layout
from tessella.tokenizers.quantizers.dual import DualQuantizer
from tessella.tokenizers.quantizers.multiscale import MultiScaleQuantizer
from tessella.tokenizers.tokenflow import semantic_loss

from .parity_cases import Case

ENCODE_SIDE = ("semantic_encoder", "to_semantic", "pixel_encoder", "to_pixel", "quantizer")
DECODE_SIDE = ("from_pixel", "pixel_decoder", "semantic_decoder", "quantizer")


def rows(grid: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return grid.flatten(2).transpose(1, 2)


def grid(cells: Tensor, like: Tensor) -> Tensor:
    """(B, N, C) -> (B, C, h, w), the spatial shape of `like`."""
    return cells.transpose(1, 2).unflatten(2, like.shape[2:])


def gradients(module: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """Gradients under official names; `module` holds them in place of its weights afterwards."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return export_weights(module, layout)


def split_like(case: Case, name: str, cells: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, C) -> the two maps of outputs `name`semantic and `name`pixel."""
    wanted = case.outputs[f"{name}semantic"]
    whole = grid(cells, wanted)
    return whole[:, : wanted.shape[1]], whole[:, wanted.shape[1] :]


def close_halves(case: Case, name: str, cells: Tensor) -> None:
    semantic, pixel = split_like(case, name, cells)
    case.close(semantic, f"{name}semantic")
    case.close(pixel, f"{name}pixel")


def close_losses(case: Case, losses: dict[str, Tensor], name: str = "") -> Tensor:
    """Compare with the official, weighted losses; gives their sum."""
    weights = official.loss_terms(case.config)
    weighted = {key: weights[key] * value for key, value in losses.items()}
    assert weighted.keys() == weights.keys()
    for ours, theirs in (("codebook", "vq_loss"), ("commitment", "commit_loss"), ("entropy", "entropy_loss")):
        if name + theirs in case.outputs:
            case.close(weighted.get(ours, torch.zeros(())), name + theirs)
    return torch.stack(list(weighted.values())).sum()


def close_gradients(case: Case, module: nn.Module, name: str) -> None:
    """Compare the gradients of the two codebooks."""
    for key, gradient in gradients(module, official.quantizer_layout(module)).items():
        half = "semantic" if "vqkd" in key else "pixel"
        if f"{name}grad_{half}_codebook" in case.outputs:
            case.close(gradient, f"{name}grad_{half}_codebook")


def mean_distances(quantizer: DualQuantizer, vectors: Tensor) -> Tensor:
    """What the release logs, (2,): means over vectors of the sum over codes of the square of squared distances."""
    return torch.stack([part.square().sum(-1).mean() for part in quantizer.part_distances(vectors)])


def close_norms(case: Case, name: str, norms: list[Tensor]) -> None:
    """Compare `mean_distances` of all scales with what was logged, if it was."""
    for half, value in zip(("semantic", "pixel"), torch.stack(norms).mean(0), strict=True):
        if f"{name}d_norm_{half}" in case.outputs:
            case.close(value, f"{name}d_norm_{half}")


def check_single_scale(case: Case) -> None:
    quantizer = official.quantizer(case.config)
    case.import_into(quantizer, official.quantizer_layout(quantizer))
    z, upstream = case.inputs["z"].requires_grad_(), case.inputs["upstream_grad"]
    z_q, ids, losses = quantizer.train()(rows(z))
    case.close(grid(z_q, z), "z_q")
    case.exact(ids.flatten(), "indices")
    total = close_losses(case, losses)
    close_norms(case, "", [mean_distances(quantizer, quantizer.unit(rows(z)))])
    case.close(grid(quantizer.lookup(ids), z), "codebook_entry")
    case.close(grid(quantizer.eval()(rows(z))[0], z), "z_q_eval")
    (total + (grid(z_q, z) * upstream).sum()).backward()
    assert z.grad is not None
    case.close(z.grad, "grad_z")
    close_gradients(case, quantizer, "")


def check_multi_scale(case: Case) -> None:
    inputs, scales = case.inputs, case.config["scales"]
    for mode, dropped in (("eval", None), ("train", None), ("train_drop", case.config.get("dropped_scale_position"))):
        if not any(name.startswith(f"{mode}.") for name in case.outputs):
            continue
        dual = official.quantizer(case.config)
        quantizer = MultiScaleQuantizer(dual, scales=scales).train(mode != "eval")
        case.import_into(quantizer, official.quantizer_layout(quantizer, "quantize."))
        halves = [inputs[f"{name}_features"].clone().requires_grad_() for name in ("semantic", "pixel")]
        seen = record_vectors(dual)
        total, ids, losses = quantizer(rows(torch.cat(halves, dim=1)), dropped=dropped)
        assert ids is not None
        case.exact(ids, f"{mode}.indices")
        close_halves(case, f"{mode}.quant_", total)
        if mode == "eval":
            check_scales(case, ids, scales, f"{mode}.")
            for count in range(1, len(scales) + 1):
                if (name := f"decode_code_map_first{count}") in case.outputs:
                    length = sum(side**2 for side in scales[:count])
                    case.close(grid(quantizer.lookup(ids[:, :length]), case.outputs[name]), name)
            continue
        loss = close_losses(case, losses, f"{mode}.")
        close_norms(case, f"{mode}.", [mean_distances(dual, vectors) for vectors in seen])
        (loss + (grid(total, inputs["upstream_grad"]) * inputs["upstream_grad"]).sum()).backward()
        for name, half in zip(("semantic", "pixel"), halves, strict=True):
            assert half.grad is not None
            case.close(half.grad, f"{mode}.grad_{name}")
        close_gradients(case, quantizer, f"{mode}.")


def record_vectors(quantizer: DualQuantizer) -> list[Tensor]:
    """The vectors of every scale, as they come to be looked up."""
    seen: list[Tensor] = []
    look_up = quantizer.quantize

    def quantize(z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        seen.append(z.detach())
        return look_up(z)

    quantizer.quantize = quantize
    return seen


def check_scales(case: Case, ids: Tensor, scales: list[int], name: str = "") -> None:
    for number, part in enumerate(ids.split([side**2 for side in scales], dim=1)):
        case.exact(part, f"{name}indices_scale{number}")


def check_step_inputs(case: Case) -> None:
    quantizer = MultiScaleQuantizer(official.quantizer(case.config), scales=case.config["scales"]).eval()
    case.import_into(quantizer, official.quantizer_layout(quantizer, "quantize."))
    codes = case.inputs["codes"]
    case.close(quantizer.step_inputs(codes), "inputs_plain")
    for number in range(len(case.config["scales"]) - 1):
        if (name := f"inputs_refine_{number}") in case.outputs:
            case.close(quantizer.step_inputs(codes, refined=number + 1), name)
    case.close(grid(quantizer.lookup(codes), case.outputs["decode_map"]), "decode_map")


def check_encode(case: Case) -> None:
    tokenizer = official.from_official_config(case.config).eval()
    side = nn.ModuleDict({name: tokenizer.get_submodule(name) for name in ENCODE_SIDE})
    case.import_into(side, official.layout(tokenizer))
    images = (case.inputs["image"] + 1) / 2
    features = tokenizer.semantic_encoder.features(images)
    case.close(features, "semantic_encoder_tokens")
    encoding = tokenizer.encode(images)
    assert encoding.ids is not None
    case.exact(encoding.ids, "indices")
    check_scales(case, encoding.ids, case.config["scales"])
    close_halves(case, "quant_", encoding.latents)
    case.close(tokenizer.features(images), "llm_visual_tokens")
    wanted = case.outputs["semantic_features"]
    vectors = grid(tokenizer.vectors(features, images), wanted)
    case.close(vectors[:, : wanted.shape[1]], "semantic_features")
    case.close(vectors[:, wanted.shape[1] :], "pixel_features")
    assert torch.equal(tokenizer.dequantize(encoding.ids), encoding.latents)
    for image, ids in zip(images, encoding.ids, strict=True):
        assert torch.equal(tokenizer.encode(image[None]).ids, ids[None]), "an image's ids depend on its batch"


def check_decode(case: Case) -> None:
    tokenizer = official.from_official_config(case.config)
    side = nn.ModuleDict({name: tokenizer.get_submodule(name) for name in DECODE_SIDE})
    case.import_into(side, official.layout(tokenizer))
    ids = case.inputs["indices"]
    latents = tokenizer.dequantize(ids)
    maps = {"image": latents, "image_from_map": rows(case.inputs["quant"])}
    if "image_without_last_scale" in case.outputs:
        maps["image_without_last_scale"] = tokenizer.dequantize(ids[:, : -tokenizer.step_lengths[-1]])
    with torch.no_grad():
        for name, z in maps.items():
            raw = tokenizer.train().decode(z)
            case.close(raw * 2 - 1, name)
            assert torch.equal(tokenizer.eval().decode(z), raw.clamp(0, 1))
        case.close(tokenizer.semantic_decode(latents), "semantic_decoded")
        case.close(tokenizer.semantic_decode(rows(case.inputs["quant"])), "semantic_decoded_from_map")


def check_distillation(case: Case) -> None:
    teacher = official.teacher_from_official_config(case.config).eval()
    case.import_into(teacher, teacher_layout(teacher))
    with torch.no_grad():
        target = teacher.features((case.inputs["image"] + 1) / 2)
    case.close(target, "teacher_target")
    decoded = case.inputs["semantic_decoded"].requires_grad_()
    loss = semantic_loss(decoded, target)
    case.close(loss, "semantic_loss")
    loss.backward()
    assert decoded.grad is not None
    case.close(decoded.grad, "grad_rec")


def check_train_losses(case: Case) -> None:
    teacher = official.teacher_from_official_config(case.config).eval()
    case.import_into(teacher, teacher_layout(teacher), prefix="teacher.")
    tokenizer = official.from_official_config(case.config | {"scale_drop": 0.0}).train()
    layout = official.layout(tokenizer)
    case.import_into(tokenizer, replace(layout, unused=(*layout.unused, "teacher.")))
    images = (case.inputs["image"] + 1) / 2
    encoding = tokenizer.encode(images)
    decoded, picture = tokenizer.semantic_decode(encoding.latents), tokenizer.decode(encoding.latents) * 2 - 1
    case.close(decoded, "semantic_decoded")
    case.close(picture, "image")
    quantizer_losses = close_losses(case, encoding.losses)
    with torch.no_grad():
        target = teacher.features(images)
    meaning = semantic_loss(decoded, target)
    case.close(meaning, "semantic_loss")
    error = F.mse_loss(picture, case.inputs["image"])
    case.close(error, "l2_loss")
    total = error + quantizer_losses + meaning
    case.close(total, "total_loss")
    total.backward()
    for key, gradient in gradients(tokenizer, layout).items():
        if f"grad/{key}" in case.outputs:
            case.close(gradient, f"grad/{key}")


CHECKS = {
    "quantizer:single_scale": check_single_scale,
    "quantizer:multi_scale": check_multi_scale,
    "next_scale_inputs": check_step_inputs,
    "tokenizer:encode": check_encode,
    "tokenizer:decode": check_decode,
    "semantic_distillation:clip": check_distillation,
    "semantic_distillation:siglip": check_distillation,
    "train_losses": check_train_losses,
}
