"""The unified model: one autoregressive LLM that reads and writes images through any tokenizer.

How the parts meet:

    llm = SmallLlama(...)  or  PretrainedLLM(name=...)    conf/llm: hydra.utils.instantiate(cfg.llm)
    text = llm.text_tokenizer(train_texts)                text.TextTokenizer; text.save(path), TextTokenizer.load(path)
    head = functools.partial(ClassifierHead)              conf/head: `_partial_: true`
    reader = FeatureReader  or  IdReader                  conf/reader: `_partial_: true`
    model = UnifiedModel(tokenizer=tokenizer, llm=llm, text=text, head=head, reader=reader, seed=seed)
    model.llm_digest()                                    sha256 of the LLM's weights; call it before training

    mixture = tasks.TaskMixture(text_to_image=0.5, captioning=0.1, question_answering=0.4)
    batch = mixture.pack(model.layout, captions=captions, questions=questions, ids=ids, features=features,
                         seed=seed, step=step)            sequence.PackedBatch; batch.to(device)
        features: what `model.adapter.reads` names, "features" (B, M, F) or "ids" (B, L); of images: model.read(images)
    losses = model(batch)                                 Losses(text, image, num_text, num_image)
    (losses.text + losses.image).backward()

    ids = generate.write_images(model, captions, seeds=range(n), sampling=Sampling(temperature=0.8, guidance=2.0))
    images = tokenizer.decode(tokenizer.dequantize(ids))
    answers = generate.answer(model, features, questions)         questions: list[list[str]]; answers likewise
    nats = generate.caption_nll(model, features, captions)        (B,), summed over the caption and its eos

The image tokenizer is frozen, belongs to nobody's parameters or state, and is never run in training: a step receives
the ids (B, L) int64 and features (B, M, F) float that it computed beforehand.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..tokenizers.base import ImageTokenizer
from .attention import ATTENTION, register
from .cross_entropy import linear_cross_entropy
from .decoder import check_length
from .head_classifier import ClassifierHead
from .layouts import Layout
from .llama_stack import is_llama_like, run_layers
from .llm import ConfiguredLLM, PretrainedLLM, SmallLlama
from .readers import FeatureReader, ImageReader, what_is_read
from .sequence import PackedBatch
from .text import TextTokenizer
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Losses:
    """Unweighted means in nats per token, zero where nothing is supervised, and the tokens they run over."""

    text: Tensor
    image: Tensor
    num_text: int
    num_image: int


class UnifiedModel(nn.Module):
    """Text, images read as features and images written as ids in one stream through one LLM.

    Args:
        tokenizer: final weights; it is frozen (no gradients, eval mode) and kept outside the module tree.
        llm: builder of the language model.
        text: the text tokenizer.
        head: builder of the image head, called with `tokenizer` and `hidden_dim`.
        reader: builder of what turns images that are read into embeddings, called with `tokenizer`, `head` and
            `hidden_dim`.
        seed: decides every initial weight; the LLM's depend on it (and the text vocabulary) alone, so that any two
            tokenizers meet the same LLM.

    Raises:
        ValueError: the LLM cannot be run on packed documents, or its logits are not linear in its hidden state.
    """

    def __init__(
        self,
        *,
        tokenizer: ImageTokenizer,
        llm: SmallLlama | PretrainedLLM | ConfiguredLLM,
        text: TextTokenizer,
        head: Callable[..., ClassifierHead],
        reader: Callable[..., ImageReader] = FeatureReader,
        seed: int,
    ):
        super().__init__()
        self._tokenizer = (
            tokenizer.requires_grad_(False).eval(),
        )  # a tuple hides it from parameters() and state_dict()
        self.vocabulary = Vocabulary(text, image_size=tokenizer.vocab_size)
        self.layout = Layout(self.vocabulary)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.llm = llm.build(text.vocab_size)
        _check_llm(self.llm)
        register()
        self.llm.set_attn_implementation(ATTENTION)
        self.hidden_dim: int = self.llm.config.hidden_size
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head = head(tokenizer=tokenizer, hidden_dim=self.hidden_dim)
            self.adapter = reader(tokenizer=tokenizer, head=self.head, hidden_dim=self.hidden_dim)

    @property
    def tokenizer(self) -> ImageTokenizer:
        """The frozen image tokenizer; move it between devices by itself."""
        return self._tokenizer[0]

    def llm_digest(self) -> str:
        """sha256 over the names and values of the LLM's weights as they are now."""
        digest = hashlib.sha256()
        for name, value in sorted(self.llm.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def read(self, images: Tensor) -> Tensor:
        """What the LLM reads of images (B, 3, H, W) in [0, 1], as training batches hold it: features or ids."""
        return what_is_read(self.tokenizer, self.adapter, images)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Text ids (...) -> (..., D)."""
        return self.llm.get_input_embeddings()(ids)

    @property
    def text_weight(self) -> Tensor:
        """The LLM's own text classifier (V, D)."""
        return self._text_classifier().weight

    def _text_classifier(self) -> nn.Linear:
        classifier = self.llm.get_output_embeddings()
        assert isinstance(classifier, nn.Linear)
        return classifier

    def hidden(self, batch: PackedBatch, wanted: Tensor) -> Tensor:
        """The LLM's last hidden states (n, D) at the `wanted` (n,) tokens of the stream."""
        parts = [self.embed_text(batch.text_ids)]
        if len(batch.image_ids):
            parts.append(self.head.inputs(batch.image_ids).flatten(0, 1))
        if batch.features is not None:
            parts.append(self.adapter(batch.features).flatten(0, 1))
        check_length(self.llm, max(batch.packing.lengths))
        stream = torch.cat([part.to(parts[0].dtype) for part in parts]).index_select(0, batch.rows)
        if is_llama_like(self.llm):
            return run_layers(self.llm, stream, batch.positions, batch.packing, wanted)
        # use_cache=True would make transformers ignore that positions restart, and documents see each other
        output = self.llm.base_model(  # pyright: ignore[reportCallIssue]
            inputs_embeds=stream[None], position_ids=batch.positions[None], use_cache=False, packing=batch.packing
        )
        return output.last_hidden_state[0].index_select(0, wanted)

    def forward(self, batch: PackedBatch, *, num_text: int | None = None, num_image: int | None = None) -> Losses:
        """The losses of a packed batch.

        Args:
            num_text, num_image: supervised tokens the means run over, when the optimizer step has more than this
                batch (several micro-batches or processes).
        """
        num_text_here = len(batch.text_at)
        hidden = self.hidden(batch, torch.cat([batch.text_at, batch.image_at]))
        at_text, at_image = hidden[:num_text_here], hidden[num_text_here:]
        text = image = hidden.new_zeros((), dtype=torch.float32)
        if len(at_text):
            text = linear_cross_entropy(at_text, self.text_weight, batch.text_targets, total=num_text)
        if len(at_image):
            image = self.head.loss(at_image, batch.image_targets, batch.image_slots, total=num_image)
        return Losses(text, image, len(at_text), len(at_image))


def _check_llm(llm: "PreTrainedModel") -> None:
    name = type(llm).__name__
    if not getattr(llm, "_supports_attention_backend", False):
        raise ValueError(
            f"{name} does not use transformers' attention interface, so documents cannot be packed (llm.name)."
        )
    changes = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    found = [key for key in changes if getattr(llm.config, key, None) not in (None, 1, 1.0)]
    if found or getattr(llm.get_output_embeddings(), "bias", None) is not None:
        raise ValueError(
            f"the logits of {name} are more than a linear map ({', '.join(found) or 'bias'}); choose another LLM."
        )
