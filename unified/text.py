"""Text to ids and back: one interface over a byte-level BPE trained here and the tokenizer of a pretrained LLM.

Special tokens are roles ("bos", "boi", ...) mapped to strings of the vocabulary, and are looked up by string, never by
a hard-coded id. Text that happens to contain such a string ("<eos>" in a caption) is encoded as ordinary characters.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

ROLES = ("pad", "bos", "eos", "boi", "eoi", "uncond")
_SCHEMA = 1
_REMEMBERED_TEXTS = 1 << 16  # captions and questions repeat; encoding one costs about as much as packing it


class TextTokenizer:
    """A `tokenizers.Tokenizer` with the six special tokens every sequence layout needs.

    Args:
        backend: the tokenizer; special tokens that it lacks are added to it.
        special: role -> string, for each of `ROLES`.
    """

    def __init__(self, backend: Tokenizer, special: dict[str, str]):
        if missing := [role for role in ROLES if role not in special]:
            raise ValueError(f"special tokens {missing} are not named; give a string for each of {list(ROLES)}.")
        if len(set(special.values())) != len(special):
            raise ValueError(f"two roles share a special token in {special}; every role needs a string of its own.")
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special.values()])
        backend.encode_special_tokens = True  # a caption can never inject a control token
        self._backend = backend
        self.special = dict(special)
        self._encode = lru_cache(_REMEMBERED_TEXTS)(self._encode_uncached)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, special tokens included."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    def special_id(self, role: str) -> int:
        """The id of a special token by role."""
        if role not in self.special:
            raise ValueError(f"there is no special token {role!r}; the roles are {', '.join(self.special)}.")
        token = self._backend.token_to_id(self.special[role])
        assert token is not None, role
        return token

    def _encode_uncached(self, text: str) -> np.ndarray:
        ids = np.array(self._backend.encode(text, add_special_tokens=False).ids, dtype=np.int64)
        ids.setflags(write=False)
        return ids

    def encode(self, text: str) -> np.ndarray:
        """The ids (n,) of a text, int64 and read-only; no special token is added."""
        return self._encode(text)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of some ids, special tokens left out; bytes that are no UTF-8 become replacement characters."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def to_json(self) -> str:
        """Everything `from_json` needs, one line of JSON."""
        return json.dumps({"schema": _SCHEMA, "special": self.special, "tokenizer": json.loads(self._backend.to_str())})

    @classmethod
    def from_json(cls, text: str) -> "TextTokenizer":
        content = json.loads(text)
        if content.get("schema") != _SCHEMA:
            raise ValueError(f"text tokenizer of schema {content.get('schema')!r}; this version reads {_SCHEMA}.")
        return cls(Tokenizer.from_str(json.dumps(content["tokenizer"])), content["special"])

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to one json file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Read what `save` wrote."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))

    @property
    def fingerprint(self) -> str:
        """sha256 of the content: equal exactly when every text gets the same ids."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def train_bpe(texts: Iterable[str], vocab_size: int = 512) -> TextTokenizer:
    """A byte-level BPE learned from `texts` (captions, questions, answers); lossless on any UTF-8.

    Words are split before merging, so a held-out combination of seen words never meets an untrained token. Fewer than
    `vocab_size` entries result when the texts hold no further pair to merge.

    Raises:
        ValueError: `vocab_size` leaves no room for the 256 bytes and the special tokens.
    """
    special = {role: f"<{role}>" for role in ROLES}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + len(special):
        least = len(alphabet) + len(special)
        raise ValueError(
            f"text_vocab_size={vocab_size} cannot hold 256 bytes and {len(special)} special tokens; "
            f"use at least {least} (llm.text_vocab_size)."
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(special.values()), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return TextTokenizer(backend, special)


def from_transformers(name: str) -> TextTokenizer:
    """The tokenizer of a pretrained LLM, by hub name or local folder; the special tokens it lacks are added at the end.

    Raises:
        ValueError: the tokenizer cannot be loaded, or has no fast (`tokenizers`) form.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the text tokenizer of {name!r} cannot be loaded ({reason}); without the network give a local folder that "
            "holds tokenizer.json (llm.name), or use llm=nano."
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"{name!r} has no fast tokenizer (tokenizer.json); choose a model that has one (llm.name).")
    eos = tokenizer.eos_token or "<eos>"
    special = {role: f"<{role}>" for role in ROLES} | {"eos": eos}
    if tokenizer.bos_token and tokenizer.bos_token != eos:
        special["bos"] = tokenizer.bos_token
    if tokenizer.pad_token and tokenizer.pad_token not in special.values():
        special["pad"] = tokenizer.pad_token
    return TextTokenizer(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), special)
