"""Who owns which id: text, special tokens, image codes."""

from .text import ROLES, TextTokenizer


class Vocabulary:
    """The ids of a unified model.

    Text (special tokens included) holds `[0, text_size)` and the image codes follow at `image_offset`. Image ids are
    made by this object alone and never pass through the text tokenizer, so neither side can produce the other's ids by
    accident.

    Args:
        text: the text tokenizer; special tokens are read from it by role.
        image_size: number of image codes; None when images are written as continuous latents.
    """

    def __init__(self, text: TextTokenizer, *, image_size: int | None):
        self.text = text
        self.text_size = text.vocab_size
        self.image_size = image_size
        self.image_offset = self.text_size
        self.size = self.text_size + (image_size or 0)
        self.pad, self.bos, self.eos, self.boi, self.eoi, self.uncond = (text.special_id(role) for role in ROLES)

    def is_image(self, token: int) -> bool:
        """Whether an id of the joint numbering is an image code."""
        if not 0 <= token < self.size:
            raise ValueError(f"id {token} is outside the vocabulary of {self.size} (text and image together).")
        return token >= self.image_offset

    def image_token(self, code: int) -> int:
        """The joint id of an image code."""
        if self.image_size is None or not 0 <= code < self.image_size:
            raise ValueError(f"image code {code} is outside [0, {self.image_size}).")
        return self.image_offset + code

    def image_code(self, token: int) -> int:
        """The image code of a joint id."""
        if not self.is_image(token):
            raise ValueError(f"id {token} is text; image ids start at {self.image_offset}.")
        return token - self.image_offset
