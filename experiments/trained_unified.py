"""A trained unified model from its run folder; without Lightning, which loads for seconds."""

from pathlib import Path

from hydra.utils import instantiate
from torch import nn

from ..tokenizers.base import ImageTokenizer
from ..unified.model import UnifiedModel
from ..unified.text import TextTokenizer
from .build import load_weights, trained_node


class UnifiedRun(nn.Module):
    """What a unified run saves: the model and the tokenizer it was trained around."""

    def __init__(self, model: UnifiedModel, tokenizer: ImageTokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer


def load_unified(folder: Path) -> UnifiedModel:
    """The trained unified model of a finished run folder, with its tokenizer, in eval mode; needs no other folder."""
    node = trained_node(folder)
    text = load_text(folder / "text.json")
    tokenizer = instantiate(node["tokenizer"])
    model = UnifiedModel(
        tokenizer=tokenizer,
        llm=instantiate(node["llm"]),
        text=text,
        head=instantiate(node["head"]),
        reader=instantiate(node["reader"]),
        seed=0,
    )
    whole = UnifiedRun(model, tokenizer)
    load_weights(whole, folder)
    return model.eval().requires_grad_(False)


def load_text(file: Path) -> TextTokenizer:
    """The text tokenizer of a unified run (text.json).

    Raises:
        ValueError: it cannot be read; names it.
    """
    try:
        return TextTokenizer.load(file)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file} cannot be read as a text tokenizer: {error}") from error
