"""Which document each example of a step becomes: a pure function of (seed, step)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from .layouts import Layout
from .sequence import Document, PackedBatch, pack


class Question(Protocol):
    """A question about an image and its answer."""

    @property
    def text(self) -> str: ...
    @property
    def answer(self) -> str: ...


class TaskMixture:
    """Turns each example of a batch into one document of one task.

    A batch of B examples holds the tasks in the proportion of their weights, exact up to rounding, and which example
    gets which task changes from step to step.

    Args:
        text_to_image, captioning, question_answering: weights; only their proportion matters.
        caption_dropout: probability that text to image loses its caption, which trains the row guidance subtracts.

    Raises:
        ValueError: a negative weight, no positive one, or a probability outside [0, 1].
    """

    def __init__(
        self,
        *,
        text_to_image: float,
        captioning: float,
        question_answering: float,
        caption_dropout: float = 0.1,
    ):
        weights = np.array([text_to_image, captioning, question_answering], dtype=np.float64)
        if (weights < 0).any() or weights.sum() <= 0:
            raise ValueError(f"task weights {weights.tolist()} need to be at least 0, and one of them above 0 (tasks).")
        if not 0 <= caption_dropout <= 1:
            raise ValueError(
                f"caption_dropout={caption_dropout} is no probability; use 0 to 1 (tasks.caption_dropout)."
            )
        self.shares = weights / weights.sum()
        self.caption_dropout = caption_dropout

    @property
    def needs_captions(self) -> bool:
        """Whether examples without captions cannot be used."""
        return bool(self.shares[:2].any())

    @property
    def needs_questions(self) -> bool:
        """Whether examples without questions cannot be used."""
        return bool(self.shares[2])

    def assign(self, count: int, *, seed: int, step: int) -> np.ndarray:
        """The task of each of `count` examples: 0 text to image, 1 captioning, 2 question answering."""
        generator = np.random.default_rng([seed, step, 0])
        bounds = np.floor(
            np.concatenate([[0], np.cumsum(self.shares)]) * count + generator.random() * (1 - 1e-9) + 1e-9
        )
        return generator.permutation(np.repeat(np.arange(3), np.diff(bounds).astype(np.int64)))

    def pack(
        self,
        layout: Layout,
        *,
        captions: Sequence[str] | None,
        questions: Sequence[Sequence[Question]] | None,
        ids: Tensor,
        features: Tensor,
        seed: int,
        step: int,
    ) -> PackedBatch:
        """The packed batch of a training step; B documents from B examples.

        Args:
            captions: B texts; may be None when no task needs them.
            questions: the questions of each of B images, all of them packed in an order that changes with the step.
            ids: (B, L) what the tokenizer writes.
            features: (B, M, F) what the model reads, or ids (B, L) where it reads ids.

        Raises:
            ValueError: a task of positive weight lacks its captions or questions.
        """
        if captions is None and self.needs_captions:
            raise ValueError(
                "text to image and captioning need captions, and the data has none; set both to 0 (tasks)."
            )
        tasks = self.assign(len(ids), seed=seed, step=step)
        generator = np.random.default_rng([seed, step, 1])
        dropped = generator.random(len(ids)) < self.caption_dropout
        documents: list[Document] = []
        for i, task in enumerate(tasks):
            if task == 2:
                asked = questions[i] if questions is not None else ()
                if not asked:
                    raise ValueError(f"example {i} of the batch has no questions; set question_answering to 0 (tasks).")
                pairs = [(asked[j].text, asked[j].answer) for j in generator.permutation(len(asked))]
                documents.append(layout.question_answering(pairs, i))
                continue
            assert captions is not None
            if task == 1:
                documents.append(layout.captioning(captions[i], i))
            else:
                documents.append(layout.text_to_image(None if dropped[i] else captions[i], i))
        return pack(documents, ids=ids, features=features)
