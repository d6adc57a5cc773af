"""Packed batches against a token-by-token reference; layouts; task mixtures."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tessella.unified.layouts import Layout
from tessella.unified.sequence import ReadImage, Text, WriteImage, pack
from tessella.unified.tasks import TaskMixture
from tessella.unified.text import train_bpe
from tessella.unified.vocabulary import Vocabulary

LENGTH, PLACES = 5, 3  # ids and features of an image


@dataclass(frozen=True)
class Question:
    text: str
    answer: str


CAPTIONS = [f"a {colour} dot" for colour in ("red", "blue", "green", "grey", "pink", "white")]
QUESTIONS = [[Question(f"what is number {i}?", str(i)) for i in range(n)] for n in (1, 2, 3, 1, 2, 3)]


@pytest.fixture(scope="module")
def layout() -> Layout:
    texts = CAPTIONS + [text for group in QUESTIONS for question in group for text in (question.text, question.answer)]
    return Layout(Vocabulary(train_bpe(texts, 300), image_size=50))


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 50, (6, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(6, PLACES, 2, generator=torch.Generator().manual_seed(1))


def mixed_documents(layout):
    return [
        layout.text_to_image(CAPTIONS[0], 4),
        layout.question_answering([(q.text, q.answer) for q in QUESTIONS[2]], 2),
        layout.text_to_image(None, 0),
        layout.captioning(CAPTIONS[3], 5),
        # an interleaved document: an image is written, text follows it, another is read, a third written
        [
            *layout.text_to_image(CAPTIONS[1], 1),
            Text(layout.vocabulary.text.encode("so"), loss=True),
            ReadImage(3),
            WriteImage(3),
        ],
        [Text(np.array([1, 2]))],
    ]


def reference(documents, ids, features):
    """Token by token: what stands at each input, its position, and what it learns to predict."""
    inputs, positions, text_targets, image_targets, lengths = [], [], [], [], []
    for document in documents:
        tokens = []  # (embedding key, text target or None, image target or None)
        for segment in document:
            if isinstance(segment, Text):
                tokens += [(("text", int(t)), int(t) if segment.loss else None, None) for t in segment.ids]
            elif isinstance(segment, WriteImage):
                row = ids[segment.index].tolist()
                tokens += [(("image", code, slot), None, (code, slot)) for slot, code in enumerate(row)]
            else:
                tokens += [(("feature", segment.index, place), None, None) for place in range(features.shape[1])]
        for position in range(len(tokens) - 1):
            at = len(inputs)
            inputs.append(tokens[position][0])
            positions.append(position)
            _, text, image = tokens[position + 1]
            if text is not None:
                text_targets.append((at, text))
            if image is not None:
                image_targets.append((at, *image))
        lengths.append(len(tokens) - 1)
    return inputs, positions, text_targets, image_targets, lengths


def unpacked_inputs(batch, features):
    """The stream of a packed batch in the terms of the reference."""
    table = [("text", token) for token in batch.text_ids.tolist()]
    table += [("image", code, slot) for row in batch.image_ids.tolist() for slot, code in enumerate(row)]
    for image in batch.features if batch.features is not None else ():
        index = next(i for i, candidate in enumerate(features) if torch.equal(candidate, image))
        table += [("feature", index, place) for place in range(image.shape[0])]
    return [table[row] for row in batch.rows.tolist()]


def test_packed_stream_and_labels_match_a_loop_over_tokens(layout, ids, features):
    documents = mixed_documents(layout)
    batch = pack(documents, ids=ids, features=features)
    inputs, positions, text_targets, image_targets, lengths = reference(documents, ids, features)
    assert unpacked_inputs(batch, features) == inputs
    assert batch.num_tokens == len(inputs)
    assert batch.positions.tolist() == positions
    assert batch.packing.lengths == tuple(lengths)
    assert list(zip(batch.text_at.tolist(), batch.text_targets.tolist(), strict=True)) == text_targets
    images = (batch.image_at, batch.image_targets, batch.image_slots)
    assert list(zip(*(part.tolist() for part in images), strict=True)) == image_targets


def test_layouts_are_what_the_table_says(layout):
    vocabulary = layout.vocabulary
    encode = vocabulary.text.encode

    def shown(document):
        parts = []
        for segment in document:
            if isinstance(segment, Text):
                parts += [(int(token), segment.loss) for token in segment.ids]
            else:
                parts.append(segment)
        return parts

    caption = [(int(token), False) for token in encode("a red dot")]
    learned = [(int(token), True) for token in encode("a red dot")] + [(vocabulary.eos, True)]
    bos, boi, eoi, uncond = ((getattr(vocabulary, role), False) for role in ("bos", "boi", "eoi", "uncond"))
    assert shown(layout.text_to_image("a red dot", 3)) == [bos, *caption, boi, WriteImage(3)]
    assert shown(layout.text_to_image(None, 3)) == [bos, uncond, boi, WriteImage(3)]
    assert shown(layout.captioning("a red dot", 2)) == [bos, boi, ReadImage(2), eoi, *learned]
    asked = [(int(token), False) for token in encode("what?")]
    replied = [(int(token), True) for token in encode("red")] + [(vocabulary.eos, True)]
    expected = [bos, boi, ReadImage(1), eoi, *asked, *replied, *asked, *replied]
    assert shown(layout.question_answering([("what?", "red"), ("what?", "red")], 1)) == expected


def test_packing_refuses_what_it_cannot_lay_out(layout, ids, features):
    with pytest.raises(ValueError, match="nothing to pack"):
        pack([])
    with pytest.raises(ValueError, match="has 1 tokens"):
        pack([[Text(np.array([3]))]])
    with pytest.raises(ValueError, match="no image ids"):
        pack([layout.text_to_image("a red dot", 0)], features=features)
    with pytest.raises(ValueError, match="no features"):
        pack([layout.captioning("a red dot", 0)], ids=ids)


def test_text_alone_packs(layout):
    batch = pack([[Text(np.array([1, 2, 3]), loss=True)]])
    assert batch.text_targets.tolist() == [2, 3]
    assert not len(batch.image_at)
    assert batch.to("cpu").positions.tolist() == [0, 1]


def mixture(**changes):
    return TaskMixture(
        **{"text_to_image": 0.5, "captioning": 0.1, "question_answering": 0.4, "caption_dropout": 0.5} | changes
    )


def packed(layout, ids, features, tasks, seed=0, step=0):
    return tasks.pack(layout, captions=CAPTIONS, questions=QUESTIONS, ids=ids, features=features, seed=seed, step=step)


def test_a_step_is_a_function_of_seed_and_step(layout, ids, features):
    tasks = mixture()
    again = [packed(layout, ids, features, mixture(), step=step).rows for step in range(8)]
    first = [packed(layout, ids, features, tasks, step=step).rows for step in range(8)]
    other = [packed(layout, ids, features, tasks, seed=1, step=step).rows for step in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({tuple(rows.tolist()) for rows in first}) > 1


def test_tasks_keep_their_shares_and_move_between_examples():
    tasks = mixture()
    counts = np.array([np.bincount(tasks.assign(24, seed=0, step=step), minlength=3) for step in range(400)])
    assert (counts.sum(1) == 24).all()
    assert (counts[:, 0] == 12).all()
    assert set(counts[:, 1]) == {2, 3}
    assert abs(counts.mean(0) - [12, 2.4, 9.6]).max() < 0.1
    first = [tasks.assign(24, seed=0, step=step)[0] for step in range(60)]
    assert set(first) == {0, 1, 2}


def test_captions_are_dropped_at_their_rate_and_questions_are_shuffled(layout, ids, features):
    only_images = mixture(captioning=0, question_answering=0)
    dropped = sum(
        (packed(layout, ids, features, only_images, step=step).text_ids == layout.vocabulary.uncond).sum().item()
        for step in range(100)
    )
    assert 240 < dropped < 360  # 600 documents at 0.5
    only_questions = mixture(text_to_image=0, captioning=0)
    orders = {tuple(packed(layout, ids, features, only_questions, step=step).text_ids.tolist()) for step in range(12)}
    assert len(orders) > 1
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_data_without_captions_or_questions_is_refused_by_name(layout, ids, features):
    tasks = mixture()
    assert tasks.needs_captions
    assert tasks.needs_questions
    with pytest.raises(ValueError, match="need captions"):
        tasks.pack(layout, captions=None, questions=QUESTIONS, ids=ids, features=features, seed=0, step=0)
    with pytest.raises(ValueError, match="no questions"):
        tasks.pack(layout, captions=CAPTIONS, questions=None, ids=ids, features=features, seed=0, step=0)
    only_questions = mixture(text_to_image=0, captioning=0)
    batch = only_questions.pack(layout, captions=None, questions=QUESTIONS, ids=ids, features=features, seed=0, step=0)
    assert len(batch.packing.lengths) == 6
    with pytest.raises(ValueError, match="above 0"):
        mixture(text_to_image=-1)
    with pytest.raises(ValueError, match="caption_dropout=2"):
        mixture(caption_dropout=2)
