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
