"""Scores of answers and captions: accuracy by question kind beside its majority floor, caption bits per byte."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from .intervals import wilson_interval
from .results import Row, Rows, row


def normalize_answer(text: str) -> str:
    """Lower case without surrounding white space: the form in which answers are compared."""
    return text.strip().lower()


class MajorityFloor:
    """What answering every question of a kind with its commonest answer would score: the floor of accuracy.

    Args:
        kinds, answers: the questions the majorities are taken from, one entry each.
        source: "training" when those are training questions (an honest baseline), "split" when they are the scored
            ones themselves (the highest constant score, slightly optimistic). Recorded in every floor's note.
    """

    def __init__(
        self, kinds: Sequence[str], answers: Sequence[str], source: Literal["training", "split"] = "training"
    ) -> None:
        _check_aligned(kinds=kinds, answers=answers)
        if source not in ("training", "split"):
            raise ValueError(f"source={source!r} must be 'training' or 'split'.")
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for kind, answer in zip(kinds, answers, strict=True):
            counts[kind][normalize_answer(answer)] += 1
        # Ties go to the first answer in the alphabet, so that a floor does not depend on the order of the data.
        self._majority = {kind: min(found, key=lambda a: (-found[a], a)) for kind, found in counts.items()}
        self.note = {"training": "majority of the training answers", "split": "majority of the scored answers"}[source]

    def answer(self, kind: str) -> str | None:
        """The commonest answer of a kind; None for a kind that was never seen (which then scores 0)."""
        return self._majority.get(kind)


def answer_accuracy(
    kinds: Sequence[str], answers: Sequence[str], predictions: Sequence[str], floor: MajorityFloor
) -> Rows:
    """Share of exact matches after `normalize_answer`: `und/accuracy`, `und/accuracy/<kind>`, and the floors beside.

    Accuracies carry a 95 % Wilson interval and their floor, `und/floor` and `und/floor/<kind>` say where it comes from.

    Args:
        kinds, answers, predictions: one entry per scored question.
    """
    _check_aligned(kinds=kinds, answers=answers, predictions=predictions)
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    floor_hits: defaultdict[str, list[bool]] = defaultdict(list)
    for kind, answer, prediction in zip(kinds, answers, predictions, strict=True):
        wanted = normalize_answer(answer)
        hits[kind].append(normalize_answer(prediction) == wanted)
        floor_hits[kind].append(floor.answer(kind) == wanted)
    rows = _accuracy_rows("", [h for k in hits for h in hits[k]], [h for k in hits for h in floor_hits[k]], floor.note)
    for kind in sorted(hits):
        note = (
            floor.note if floor.answer(kind) is not None else f"no {kind} question among the answers it is taken from"
        )
        rows |= _accuracy_rows(f"/{kind}", hits[kind], floor_hits[kind], note)
    return rows


def caption_bits_per_byte(nats: float, captions: Iterable[str]) -> Row:
    """Bits a model spends per UTF-8 byte of the captions: comparable between text vocabularies, unlike loss per token.

    Args:
        nats: negative log-likelihood summed over every supervised token of all the captions.
        captions: the captions those tokens spell; n in the row counts them.
    """
    lengths = [len(caption.encode()) for caption in captions]
    if sum(lengths) == 0:
        raise ValueError(
            f"{len(lengths)} captions with no text in all; at least one byte is needed (data.has_captions)."
        )
    return row(nats / math.log(2) / sum(lengths), len(lengths), bytes=sum(lengths))


def _accuracy_rows(suffix: str, hits: list[bool], floor_hits: list[bool], note: str) -> Rows:
    n = len(hits)
    low, high = wilson_interval(sum(hits), n)
    floor = sum(floor_hits) / n
    return {
        f"und/accuracy{suffix}": row(sum(hits) / n, n, interval=[low, high], floor=floor),
        f"und/floor{suffix}": row(floor, n, note=note),
    }


def _check_aligned(**columns: Sequence[str]) -> None:
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"one entry per question is needed in each list, and at least one question; got {sizes}.")
