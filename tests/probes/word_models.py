"""Tokenizers of every kind, and models whose loss on a word is known exactly or computed at random."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from foveate.data.tokenizer import make_tokenizer
from foveate.probes.word_loss import Reader

LEARNED_FROM = "the cat sat on a mat, “and saw” how far away — so it said — the naïve old 東京 moon's mat. "
V = 257


def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """By bytes; by words after GPT-2; after Llama; across words, also with offsets that leave white space out."""
    learn = [LEARNED_FROM * 5]
    trimmed = _across_words(learn)
    trimmed.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return {
        "bytes": make_tokenizer("bytes", list),
        "bpe": make_tokenizer("bpe:300", lambda: learn, progress=False),
        "trimmed": trimmed,
        "llama": _like_llama(learn),
        "across": _across_words(learn),
    }


def _like_llama(learn: list[str]) -> PreTrainedTokenizerFast:
    """Spaces become ▁, and characters that it has no token for are spelled in bytes."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator(learn, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    known = dict(learner.get_vocab()).items()
    vocabulary = [f"<0x{byte:02X}>" for byte in range(256)] + ["<s>"]
    vocabulary += [token for token, _ in sorted(known, key=lambda pair: pair[1]) if token.isascii() or "▁" in token]
    ids = {token: number for number, token in enumerate(vocabulary)}
    merges = [(a, b) for a, b in _merges(learner) if {a, b, a + b} <= ids.keys()]
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges, byte_fallback=True, fuse_unk=True))
    backend.normalizer = learner.normalizer
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>")


def _across_words(learn: list[str]) -> PreTrainedTokenizerFast:
    """Nothing keeps its tokens from joining words."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        learn, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    learner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=learner, bos_token="<s>", eos_token="<s>")


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    import json

    return [(a, b) for a, b in json.loads(learner.to_str())["model"]["merges"]]


def llama_reader(name: str, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, positions: int = 64) -> Reader:
    set_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        initializer_range=0.5,
        pad_token_id=None,
        attention_dropout=0.5,
        **shape,
    )
    return Reader(name=name, model=LlamaForCausalLM(config).eval(), tokenizer=tokenizer)


class Planted(nn.Module):
    """A byte model; ``scores`` of the next byte [B, T, V] before the softmax are all it is."""

    device = torch.device("cpu")

    def __init__(self, positions: int = 64) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=positions, vocab_size=V)
        self.config.get_text_config = lambda: self.config

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.scores(input_ids))

    def scores(self, ids_BT: Tensor) -> Tensor:
        return torch.zeros(*ids_BT.shape, V)


class LikesLetters(Planted):
    """Gives some letters a bonus in nats."""

    def __init__(self, letters: str, bonus: float) -> None:
        super().__init__()
        self.letters, self.bonus = letters, bonus

    def scores(self, ids_BT: Tensor) -> Tensor:
        liked = one_hot(torch.tensor(list(self.letters.encode())), V).sum(0)
        return super().scores(ids_BT) + self.bonus * liked

    def nats(self, word: str) -> float:
        liked = sum(letter in self.letters for letter in word)
        normaliser = math.log(V - len(self.letters) + len(self.letters) * math.exp(self.bonus))
        return len(word.encode()) * normaliser - self.bonus * liked


class RemembersLetters(Planted):
    """Gives whatever byte it has read in its window a bonus in nats."""

    def __init__(self, bonus: float) -> None:
        super().__init__()
        self.bonus = bonus

    def scores(self, ids_BT: Tensor) -> Tensor:
        return self.bonus * (one_hot(ids_BT, V).cumsum(1) > 0)

    def nats(self, read: int, known: bool) -> float:
        """Of a byte after ``read`` different ones, itself ``known`` from among them."""
        return math.log(V - read + read * math.exp(self.bonus)) - self.bonus * known
