"""tessella: image tokenizers as swappable parts of one autoregressive LLM."""

__version__ = "0.1.0"
