"""SigLIP's vision tower against the one that Janus runs."""

from tessella.tokenizers import official_siglip

from .parity_cases import Case


def check_tower(case: Case) -> None:
    tower = official_siglip.from_official_config(case.config).eval()
    case.import_into(tower, official_siglip.layout(tower))
    pixels = case.inputs["pixel_values"]
    if case.config.get("pixel_mean"):  # the official tower normalizes then; otherwise its inputs are normalized
        pixels = tower.normalize(pixels)
    result = tower.tower(pixel_values=pixels, output_hidden_states=True)
    case.close(result.last_hidden_state, "features")
    case.close(tower.features(pixels * tower.pixel_std + tower.pixel_mean), "features")
    depth = case.config.get("effective_depth", len(result.hidden_states) - 1)
    assert len(result.hidden_states) == depth + 1
    for name, hidden in zip(("embeddings", *(f"block_{i}" for i in range(depth))), result.hidden_states, strict=True):
        if name in case.outputs:
            case.close(hidden, name)


CHECKS = {"vision_tower": check_tower}
