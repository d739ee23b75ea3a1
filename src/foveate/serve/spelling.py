"""How tokens are written in answers: text, bytes, and log probabilities in either form of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from foveate.data.tokenizer import BYTE_CHARACTERS
from foveate.serve.engine import Token

BYTE_OF = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


class Speller:
    """What each id of a tokenizer stands for, by itself."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.special = set(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.byte_level = backend is not None and "ByteLevel" in str(backend.decoder)
        self.spell = lru_cache(1 << 16)(self._spell)

    def _spell(self, token: int) -> tuple[str, tuple[int, ...]]:
        """Its text, with \\x.. for bytes that are no characters, and its bytes."""
        written = self.tokenizer.convert_ids_to_tokens(token)
        if written is None:  # embeddings may have more rows than the tokenizer has tokens
            return "", ()
        if self.byte_level and token not in self.special and all(letter in BYTE_OF for letter in written):
            raw = bytes(BYTE_OF[letter] for letter in written)
            try:
                return raw.decode(), tuple(raw)
            except UnicodeDecodeError:
                return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw), tuple(raw)
        text = str(self.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text, tuple(text.encode(errors="replace"))


def chat_log_probs(speller: Speller, tokens: Sequence[Token]) -> list[dict[str, Any]]:
    def told(token: int, log_prob: float | None) -> dict[str, Any]:
        text, raw = speller.spell(token)
        return {"token": text, "logprob": log_prob, "bytes": list(raw)}

    return [
        told(token.id, token.log_prob) | {"top_logprobs": [told(other, value) for other, value in token.likeliest]}
        for token in tokens
    ]


class CompletionLogProbs:
    """The form of completions: lists side by side, with the place of each token in the text."""

    def __init__(self, speller: Speller) -> None:
        self.speller = speller
        self.offset = 0

    def of(self, tokens: Sequence[Token]) -> dict[str, Any]:
        texts, offsets = [], []
        for token in tokens:
            text, raw = self.speller.spell(token.id)
            texts.append(text)
            offsets.append(self.offset)
            if token.id not in self.speller.special:
                # a character counts where its first byte stands
                self.offset += len(text) if not text.startswith("bytes:") else sum(byte & 0xC0 != 0x80 for byte in raw)
        return {
            "tokens": texts,
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": [
                {self.speller.spell(other)[0]: value for other, value in token.likeliest}
                if token.log_prob is not None
                else None
                for token in tokens
            ],
            "text_offset": offsets,
        }
