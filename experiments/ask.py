"""`tessella ask`: questions about a picture, each asked alone."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from .runs import plain


def main(cfg: DictConfig) -> None:
    for question, answer in run(cfg):
        print(answer if isinstance(cfg.question, str) else f"{question}\t{answer}")


def run(cfg: DictConfig) -> list[tuple[str, str]]:
    """(question, answer) for every question.

    Raises:
        ValueError: no run, no question, or a file that is not a picture.
    """
    import torch

    from ..unified.generate import answer
    from .build import resolve_run
    from .pictures import prepare, read_pixels
    from .token_store import cached_precision
    from .trained_unified import load_unified

    questions = [cfg.question] if isinstance(cfg.question, str) else [str(question) for question in plain(cfg.question)]
    if not questions or not all(question.strip() for question in questions):
        raise ValueError("question is empty; ask something: tessella ask picture.png 'what colour is the shape?'.")
    pixels = read_pixels(Path(cfg.image))
    folder = resolve_run(cfg.run, ("unified",))
    if cfg.run is None:
        print(f"using {folder}", file=sys.stderr)
    model = load_unified(folder)
    images = prepare(pixels, model.tokenizer.image_size)[None].float() / 255
    with torch.inference_mode():
        features = cached_precision(model.read(images))
        answers = answer(model, features, [questions])
    return list(zip(questions, answers[0], strict=True))


if __name__ == "__main__":
    from .cli import main as tessella

    tessella(["ask", *sys.argv[1:]])
