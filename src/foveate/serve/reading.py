"""From what a request holds to token ids: prompts, conversations and ids, checked before anything costs time.

What is too long to fit is refused by its characters, before it is encoded; encoding is done in a thread.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from anyio import to_thread

from foveate.data.prompt import document_mark, encode_chat, encode_prompt
from foveate.errors import FoveateError, first_line
from foveate.serve.errors import ApiError, bad
from foveate.serve.fields import MOST_ANSWERS, shown, wrong

ROLES = ("system", "developer", "user", "assistant")
MOST_MESSAGES = 4096
# for tokenizers that bring no template: the model then continues a transcript
TRANSCRIPT = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class Reader:
    """Encodes for one model: ``vocabulary`` ids, up to ``context`` tokens.

    ``special_tokens``: let the control tokens that texts spell out be tokens; otherwise they are text.
    """

    def __init__(self, tokenizer: Any, *, vocabulary: int, context: int, special_tokens: bool = False) -> None:
        self.special_tokens = special_tokens
        self.vocabulary, self.context = vocabulary, context
        # a tokenizer is not for several threads at once, and has a template of its own here
        self.tokenizer = copy.deepcopy(tokenizer)
        self.is_transcript = tokenizer.chat_template is None
        if self.is_transcript:
            self.tokenizer.chat_template = TRANSCRIPT
        # in bytes: a byte may be all that a token stands for
        longest = max((len(token.encode()) for token in tokenizer.get_vocab()), default=1)
        self.most_characters = context * longest
        self._one_at_a_time = _limiter()

    async def prompts(self, given: Any) -> list[list[int]]:
        """The ids of a text, of ids, or of a list of either; those of texts begin with the document mark."""
        if given is None:
            given = ""
        if isinstance(given, str):
            return [await self._text(given, "prompt")]
        if not isinstance(given, list) or not given:
            raise wrong("prompt", given, "a text, a list of token ids, or a list of either, not empty")
        if all(type(each) is int for each in given):
            return [self._ids(given, "prompt")]
        if len(given) > MOST_ANSWERS:
            raise bad(f"prompt holds {len(given):,} prompts; this server takes {MOST_ANSWERS} at once", "prompt")
        prompts = []
        for index, each in enumerate(given):
            name = f"prompt[{index}]"
            if isinstance(each, str):
                prompts.append(await self._text(each, name))
            elif isinstance(each, list) and all(type(token) is int for token in each):
                prompts.append(self._ids(each, name) if each else await self._text("", name))
            else:
                raise wrong(name, each, "a text or a list of token ids")
        return prompts

    async def chat(self, messages: Any, name: str = "messages") -> list[int]:
        """The ids of a conversation and of the beginning of the answer."""
        if not isinstance(messages, list) or not messages or len(messages) > MOST_MESSAGES:
            raise wrong(name, messages, f"a list of 1 to {MOST_MESSAGES:,} messages")
        said = [read_message(message, f"{name}[{index}]") for index, message in enumerate(messages)]
        self._check_length(sum(len(message["content"]) for message in said), name)

        def encode() -> list[int]:
            options = {"special_tokens": self.special_tokens, "begin": self.is_transcript}
            return encode_chat(self.tokenizer, said, add_generation_prompt=True, **options)

        return self._checked(await self._in_thread(encode, name), name)

    async def _text(self, prompt: str, name: str) -> list[int]:
        self._check_length(len(prompt), name)

        def encode() -> list[int]:
            return encode_prompt(self.tokenizer, prompt, special_tokens=self.special_tokens)

        return self._checked(await self._in_thread(encode, name), name)

    def _ids(self, ids: list[int], name: str) -> list[int]:
        outside = next((token for token in ids if not 0 <= token < self.vocabulary), None)
        if outside is not None:
            raise bad(f"{name} has the id {shown(outside)}; ids go from 0 to {self.vocabulary - 1:,}", "prompt")
        return self._checked(ids, name)

    def _check_length(self, characters: int, name: str) -> None:
        if characters > self.most_characters:
            raise bad(
                f"{name} has {characters:,} characters; this server reads up to {self.context:,} tokens, which hold "
                f"{self.most_characters:,} at most",
                name,
            )

    def _checked(self, ids: list[int], name: str) -> list[int]:
        if not ids:
            ids = [document_mark(self.tokenizer)]
        if len(ids) > self.context:
            raise bad(f"{name} has {len(ids):,} tokens; this server reads up to {self.context:,}", name)
        return ids

    async def _in_thread(self, encode: Any, name: str) -> list[int]:
        try:
            return list(await to_thread.run_sync(encode, limiter=self._one_at_a_time))
        except FoveateError as error:
            raise bad(f"{name}: {error}", name) from None
        except Exception as error:  # a chat template raises whatever it likes
            raise bad(f"{name} cannot be encoded: {first_line(error)}", name) from error


def _limiter() -> Any:
    from anyio import CapacityLimiter

    return CapacityLimiter(1)


def read_message(message: Any, name: str) -> dict[str, str]:
    """Role and text of one message of a conversation.

    Raises:
        ApiError: a part that is not text, by its place; whatever else a message may hold.
    """
    if not isinstance(message, dict):
        raise wrong(name, message, "an object with role and content")
    for key, value in message.items():
        if key not in ("role", "content", "type", "id", "status") and value not in (None, []):
            raise bad(f"{name}.{key} is not supported; leave it out", f"{name}.{key}")
    if message.get("type") not in (None, "message"):
        raise bad(f"{name}.type is {shown(message['type'])}; this server reads messages of text", f"{name}.type")
    role = message.get("role")
    if role not in ROLES:
        raise wrong(f"{name}.role", role, f"one of {', '.join(ROLES)}")
    return {
        "role": "system" if role == "developer" else role,
        "content": _content(message.get("content"), f"{name}.content"),
    }


def _content(content: Any, name: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(name, content, "a text or a list of text parts")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text"):
            where = f"{name}[{index}].type"
            raise bad(f"{where} is {shown(kind)}; this model reads text parts alone", where)
        if not isinstance(part.get("text"), str):
            raise wrong(f"{name}[{index}].text", part.get("text"), "a string")
        texts.append(part["text"])
    return "".join(texts)


def items_as_messages(given: Any, instructions: str | None) -> list[Any]:
    """The input of a response as a conversation."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise wrong("input", given, "a text or a list of messages")
    return [{"role": "system", "content": instructions}, *given] if instructions else given


def room_for(prompt: Sequence[int], asked: int | None, default: int, context: int, name: str) -> int:
    """Tokens that an answer may have, up to the end of the context."""
    room = context - len(prompt)
    if room <= 0 and asked != 0:
        raise ApiError(
            400,
            f"{name} has {len(prompt):,} tokens; this server reads and writes {context:,} in all, so that none is left "
            f"for an answer",
            param=name,
            code="context_length_exceeded",
        )
    return max(min(asked if asked is not None else default, room), 0)
