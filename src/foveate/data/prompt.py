"""What text is to a model: one rule for documents, prompts and conversations, wherever they come from.

1. **Text is text.** What a user wrote never becomes a control token: a text that spells out ``<|endoftext|>`` has those
   13 characters in it. Only who asks for it (``special_tokens=True``, ``--special-tokens``) gets the token.
2. **A document begins after the mark.** In training every document follows an end-of-text mark (beginning-of-text
   where the tokenizer has one), so whatever begins a document begins with it: a prompt, an empty one too, and a text to
   score.

Training, evaluation, sampling, serving, lm-eval and the probes all encode through this module or ``data.encode``. Our
own tokenizers put the mark themselves when called as ``tokenizer(text)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foveate.data.encode import text_encoder, token_dtype
from foveate.errors import FoveateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def document_mark(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id a document begins after: beginning-of-text if the tokenizer has it, else end-of-text, as in lm-eval.

    Raises:
        FoveateError: the tokenizer has neither.
    """
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    raise FoveateError(
        "the tokenizer has neither a beginning-of-text nor an end-of-text token to start a document with"
    )


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, *, special_tokens: bool = False) -> list[int]:
    """The ids of ``text`` alone, without marks around it.

    Args:
        special_tokens: let the control tokens that the text spells out become ids of their own.

    Raises:
        FoveateError: the text holds half a surrogate pair, which is not text.
    """
    check_text(text)
    encoder = text_encoder(tokenizer, special_tokens=special_tokens)
    pieces = encoder.encode(list(encoder.cut(text)))
    return np.concatenate([np.zeros(0, token_dtype(tokenizer)), *pieces]).tolist()


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, *, special_tokens: bool = False) -> list[int]:
    """The ids of a prompt, which is the beginning of a document: the mark, then the text; of an empty one the mark.

    Args:
        special_tokens: as in ``encode_text``; a prompt that then begins with the mark itself gets no second one.

    Raises:
        FoveateError: as ``encode_text``; a tokenizer that has no mark.
    """
    return begin_document(tokenizer, encode_text(tokenizer, prompt, special_tokens=special_tokens))


def begin_document(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """``ids`` after the mark, which they may begin with already."""
    mark = document_mark(tokenizer)
    return list(ids) if len(ids) and ids[0] == mark else [mark, *ids]


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    *,
    special_tokens: bool = False,
    begin: bool = False,
    **template: Any,
) -> list[int]:
    """The ids of a conversation under the tokenizer's chat template, whose control tokens are tokens.

    Those that a message spells out are text: a user cannot end the user's turn.

    Args:
        messages: as ``apply_chat_template`` takes them.
        special_tokens: let those in messages be tokens, too.
        begin: put the mark before it where the template does not: for templates that were not trained with.
        template: ``add_generation_prompt`` and whatever else the template takes.
    """
    stand_ins: dict[str, str] = {}
    if not special_tokens:
        given = str(messages)
        spelled = [token for token in control_tokens(tokenizer) if token in given]
        # no text has these: private-use characters, numbered so that one cannot be taken for another
        stand_ins = {token: f"\ue0f0{number}\ue0f1" for number, token in enumerate(spelled)}
        if any(sign in given for sign in stand_ins.values()):
            raise FoveateError("a message has characters of the private-use area that are taken (U+E0F0)")
        messages = [_replaced(message, stand_ins) for message in messages]
    given_messages: Any = messages  # Any: transformers' stubs know no content of several parts
    rendered = str(tokenizer.apply_chat_template(given_messages, tokenize=False, **template))
    ids: list[int] = []
    for part, token in _parts(rendered, {sign: token for token, sign in stand_ins.items()}):
        ids += encode_text(tokenizer, part, special_tokens=True) if part else []
        ids += encode_text(tokenizer, token) if token else []
    return begin_document(tokenizer, ids) if begin else ids


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts of the special tokens, the longest first."""
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    names = {str(token) for token in added.values() if getattr(token, "special", False)}
    return sorted(names | set(tokenizer.all_special_tokens), key=len, reverse=True)


def check_text(text: str) -> None:
    """Raise a ``FoveateError`` for a string that is not text: with half a surrogate pair in it."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FoveateError(
            f"the text is not Unicode: character {error.start} is half a surrogate pair, as a terminal makes of bytes "
            f"that are not UTF-8"
        ) from None


def _replaced(value: Any, stand_ins: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for token, sign in stand_ins.items():
            value = value.replace(token, sign)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(item, stand_ins) for key, item in value.items()}
    return [_replaced(item, stand_ins) for item in value] if isinstance(value, list | tuple) else value


def _parts(text: str, tokens: Mapping[str, str]) -> list[tuple[str, str]]:
    """``text`` as (what stands before a sign, the token of that sign), the last with no token."""
    parts, at = [], 0
    while found := [(place, sign) for sign in tokens if (place := text.find(sign, at)) >= 0]:
        place, sign = min(found)
        parts.append((text[at:place], tokens[sign]))
        at = place + len(sign)
    return [*parts, (text[at:], "")]
