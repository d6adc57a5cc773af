"""Vision towers from transformers' checkpoints, by hub name or folder, complete or not at all."""

from collections.abc import Mapping
from typing import Any

# The facts a checkpoint and the configuration must agree on: name in transformers, name here.
SHARED_FACTS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_size",
    "hidden_act": "activation",
}


def load_tower(pretrained: str, config: Any, model_class: Any, *, kind: str, facts: Mapping[str, str]) -> Any:
    """The vision tower of a checkpoint (of the whole model or of the tower), with every one of its weights.

    Args:
        pretrained: hub name or folder.
        config: transformers' configuration of the tower.
        model_class: transformers' class of the tower.
        kind: what such a checkpoint is called ("SigLIP").
        facts: what checkpoint and configuration must agree on, as `SHARED_FACTS`.

    Raises:
        ValueError: a checkpoint that cannot be read, is of other sizes, or lacks weights.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it lists the text tower as unexpected and every retry of a fetch
    try:
        published = type(config).from_pretrained(pretrained)
        pairs = {ours: (getattr(published, theirs), getattr(config, theirs)) for theirs, ours in facts.items()}
        differences = [f"{name}={theirs} (not {ours})" for name, (theirs, ours) in pairs.items() if theirs != ours]
        if differences:
            raise ValueError(f"pretrained={pretrained} has {', '.join(differences)}; set the same in tokenizer.")
        tower, report = model_class.from_pretrained(pretrained, config=config, output_loading_info=True)
    except OSError:
        raise ValueError(
            f"pretrained={pretrained} is no folder of a {kind} checkpoint and cannot be fetched from the hub; "
            "without a network give the folder of a downloaded one (tokenizer.pretrained)."
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    if report["missing_keys"]:
        raise ValueError(
            f"pretrained={pretrained} lacks {len(report['missing_keys'])} weights of the vision tower, for example "
            f"{sorted(report['missing_keys'])[0]} (tokenizer.pretrained)."
        )
    return tower
