"""The layouts of tessella's own documents; what is trained and what is asked later come from the same lines."""

from collections.abc import Sequence

import numpy as np

from .sequence import ReadImage, Segment, Text, WriteImage
from .vocabulary import Vocabulary


class Layout:
    """Documents of one vocabulary.

    | document | tokens | learned |
    |---|---|---|
    | text to image | bos caption boi IMAGE | IMAGE |
    | captioning | bos boi FEATURES eoi caption eos | caption eos |
    | question answering | bos boi FEATURES eoi question answer eos question answer eos ... | answer eos |

    Without a caption, text to image reads `bos uncond boi`: the row that classifier-free guidance subtracts. An image
    being written has no end marker: its length is known, so nothing is left to predict.
    """

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        special = {
            role: np.array([vocabulary.text.special_id(role)]) for role in ("bos", "eos", "boi", "eoi", "uncond")
        }
        self._bos, self._boi, self._eos = special["bos"], special["boi"], special["eos"]
        self._unconditional = Text(np.concatenate([special[role] for role in ("bos", "uncond", "boi")]))
        self._begin_read = Text(np.concatenate([special["bos"], special["boi"]]))
        self._end_read = Text(special["eoi"])

    def image_prompt(self, caption: str | None) -> list[Segment]:
        """What precedes an image to be written; None leaves the caption out."""
        if caption is None:
            return [self._unconditional]
        return [Text(np.concatenate([self._bos, self.vocabulary.text.encode(caption), self._boi]))]

    def text_to_image(self, caption: str | None, image: int) -> list[Segment]:
        """A caption and then the image, row `image` of the ids."""
        return [*self.image_prompt(caption), WriteImage(image)]

    def read_prompt(self, image: int) -> list[Segment]:
        """What precedes text about an image, row `image` of the features."""
        return [self._begin_read, ReadImage(image), self._end_read]

    def captioning(self, caption: str, image: int) -> list[Segment]:
        """An image and then its caption."""
        return [*self.read_prompt(image), self._learned(caption)]

    def question(self, text: str) -> list[Segment]:
        """A question, to be followed by its answer."""
        return [Text(self.vocabulary.text.encode(text))]

    def question_answering(self, questions: Sequence[tuple[str, str]], image: int) -> list[Segment]:
        """An image and then any number of (question, answer) pairs."""
        document = self.read_prompt(image)
        for text, answer in questions:
            document += [*self.question(text), self._learned(answer)]
        return document

    def _learned(self, text: str) -> Text:
        return Text(np.concatenate([self.vocabulary.text.encode(text), self._eos]), loss=True)
