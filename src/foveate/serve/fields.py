"""Every argument a request may have: what it must be, and what becomes of it.

An argument is *done*, or its request is refused by a line that names it. ``table`` shows it as the documents do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foveate.serve.errors import ApiError, bad

COMPLETIONS, CHAT, RESPONSES = "completions", "chat", "responses"
ALL = (COMPLETIONS, CHAT, RESPONSES)
BOTH = (COMPLETIONS, CHAT)

MOST_ANSWERS = 128  # to a request: prompts times n
MOST_STOPS, LONGEST_STOP = 16, 256
MOST_BIASES = 1024
SHOWN = 60  # characters of a wrong value

Check = Callable[[str, Any], Any]  # the value as it is used; raises ApiError


@dataclass(frozen=True)
class Field:
    """``what`` happens; ``refused``: only the values named there, if any, are accepted, which change nothing."""

    name: str
    where: tuple[str, ...]
    check: Check
    what: str
    refused: bool = False


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def wrong(name: str, value: Any, wanted: str) -> ApiError:
    return bad(f"{name} is {shown(value)}; it must be {wanted}", name)


def whole(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(name, value, f"a whole number from {low:,} to {high:,}")
        return value

    return check


def number(low: float, high: float, *, above: bool = False) -> Check:
    def check(name: str, value: Any) -> float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not fits or (above and value == low):
            raise wrong(
                name, value, f"a number {'above' if above else 'from'} {low:g} {'and up ' if above else ''}to {high:g}"
            )
        return float(value)

    return check


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, value, "a string")
    return value


def anything(name: str, value: Any) -> Any:
    return value


def only(*accepted: Any, why: str) -> Check:
    """Nothing but ``accepted``, which ask for what happens anyway."""

    def check(name: str, value: Any) -> None:
        # by type too: 0 is not false
        if not any(type(value) is type(one) and value == one for one in accepted):
            raise bad(f"{name} is not supported: {why}; leave it out", name)

    return check


def stops(name: str, value: Any) -> list[str]:
    given = [value] if isinstance(value, str) else value
    if (
        not isinstance(given, list)
        or len(given) > MOST_STOPS
        or not all(isinstance(each, str) and 0 < len(each) <= LONGEST_STOP for each in given)
    ):
        raise wrong(name, value, f"a string of 1 to {LONGEST_STOP} characters, or a list of up to {MOST_STOPS} of them")
    return given


def biases(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, dict) or len(value) > MOST_BIASES:
        raise wrong(name, value, f"an object of up to {MOST_BIASES} token ids and the numbers added to their scores")
    result = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise bad(f"{name} names {shown(token)}, which is not a token id", name)
        result[int(token)] = number(-100, 100)(f"{name}[{token}]", bias)
    return result


def stream_options(name: str, value: Any) -> dict[str, bool]:
    if not isinstance(value, dict):
        raise wrong(name, value, "an object")
    for option, setting in value.items():
        if option not in ("include_usage", "include_obfuscation"):
            raise bad(f"{name}.{option} is not supported; leave it out", name)
        boolean(f"{name}.{option}", setting)
    if value.get("include_obfuscation"):
        raise bad(f"{name}.include_obfuscation is not supported; leave it out", name)
    return value


def format_of_text(name: str, value: Any) -> None:
    if not isinstance(value, dict) or value.get("type") != "text" or len(value) > 1:
        raise bad(
            f'{name} is not supported other than {{"type": "text"}}: what a model writes is not made to fit', name
        )


def text_options(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise wrong(name, value, "an object")
    for option, setting in value.items():
        if option != "format":
            raise bad(f"{name}.{option} is not supported; leave it out", name)
        format_of_text("text.format", setting)


def pairs(name: str, value: Any) -> dict[str, str]:
    fits = isinstance(value, dict) and len(value) <= 16
    if not fits or not all(isinstance(v, str) and len(v) <= 512 and len(k) <= 64 for k, v in value.items()):
        raise wrong(name, value, "an object of up to 16 strings")
    return dict(value)


def included(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(each == "message.output_text.logprobs" for each in value):
        raise wrong(name, value, 'a list that holds nothing but "message.output_text.logprobs"')
    return value


NO_TOOLS = "this server calls no tools"
NOT_STORED = "this server stores no answers"
HINT = "accepted; changes nothing, by its definition"

FIELDS = (
    Field("model", ALL, text, "must be this server's model, or left out"),
    Field("prompt", (COMPLETIONS,), anything, "a text, token ids, or a list of either; a text begins a document"),
    Field("messages", (CHAT,), anything, "texts and text parts of system, developer, user, assistant; no others"),
    Field("input", (RESPONSES,), anything, "a text or messages of text parts; no others"),
    Field("instructions", (RESPONSES,), text, "a system message before the input"),
    Field("max_tokens", (COMPLETIONS,), whole(0, 1 << 31), "16 if left out; 0 only with `echo`"),
    Field("max_tokens", (CHAT,), whole(1, 1 << 31), "1,024 if left out"),
    Field("max_completion_tokens", (CHAT,), whole(1, 1 << 31), "another name of `max_tokens`"),
    Field("max_output_tokens", (RESPONSES,), whole(1, 1 << 31), "1,024 if left out; `incomplete` where it cuts"),
    Field("n", BOTH, whole(1, MOST_ANSWERS), f"answers; times prompts up to {MOST_ANSWERS}"),
    Field("best_of", (COMPLETIONS,), whole(1, MOST_ANSWERS), "the `n` likeliest per token of so many; not in a stream"),
    Field("echo", (COMPLETIONS,), boolean, "the prompt before the answer, with its `logprobs` if asked for"),
    Field("logprobs", (COMPLETIONS,), whole(0, 20), "log probabilities, with so many of the likeliest"),
    Field("logprobs", (CHAT,), boolean, "log probabilities"),
    Field("top_logprobs", (CHAT,), whole(0, 20), "so many of the likeliest; needs `logprobs`"),
    Field("top_logprobs", (RESPONSES,), whole(0, 20), "so many of the likeliest; needs `include`"),
    Field("include", (RESPONSES,), included, "`message.output_text.logprobs` alone"),
    Field("temperature", ALL, number(0, 2), "1 if left out, as the protocol has it; 0: the likeliest"),
    Field("top_p", ALL, number(0, 1, above=True), "draw from the likeliest that make up this much"),
    Field("top_k", ALL, whole(-1, 1 << 31), "beyond the protocol; draw from so many; 0 or -1: from all"),
    Field("min_p", ALL, number(0, 1), "beyond the protocol; at least this times the likeliest"),
    Field("presence_penalty", ALL, number(-2, 2), "on tokens of the answer so far"),
    Field("frequency_penalty", ALL, number(-2, 2), "on tokens of the answer so far, each time"),
    Field("repetition_penalty", ALL, number(0.1, 10), "beyond the protocol; on prompt and answer, as in transformers"),
    Field("logit_bias", ALL, biases, "added to the scores of tokens"),
    Field("seed", ALL, whole(-(1 << 63), (1 << 63) - 1), "equal seeds, equal texts, whatever else the server does"),
    Field("stop", ALL, stops, f"up to {MOST_STOPS} of up to {LONGEST_STOP} characters; left out of the text"),
    Field("stream", ALL, boolean, "server-sent events, `data: [DONE]` last"),
    Field("stream_options", BOTH, stream_options, "`include_usage`"),
    Field("metadata", (RESPONSES,), pairs, "returned"),
    Field("user", ALL, text, HINT),
    Field("safety_identifier", (CHAT, RESPONSES), text, HINT),
    Field("prompt_cache_key", (CHAT, RESPONSES), text, HINT),
    Field("service_tier", (CHAT, RESPONSES), only("auto", "default", why="there is one"), "`auto`, `default`", True),
    Field("store", (CHAT, RESPONSES), only(False, why=NOT_STORED), "`false` alone", True),
    Field("metadata", (CHAT,), only({}, why=NOT_STORED), "", True),
    Field("previous_response_id", (RESPONSES,), only(why=NOT_STORED), "", True),
    Field("conversation", (RESPONSES,), only(why=NOT_STORED), "", True),
    Field("prompt", (RESPONSES,), only(why=NOT_STORED), "", True),
    Field("background", (RESPONSES,), only(False, why=NOT_STORED), "`false` alone", True),
    Field("tools", (CHAT, RESPONSES), only([], why=NO_TOOLS), "", True),
    Field("tool_choice", (CHAT, RESPONSES), only("none", why=NO_TOOLS), "`none` alone", True),
    Field("parallel_tool_calls", (CHAT, RESPONSES), only(False, why=NO_TOOLS), "`false` alone", True),
    Field("max_tool_calls", (RESPONSES,), only(why=NO_TOOLS), "", True),
    Field("functions", (CHAT,), only([], why=NO_TOOLS), "", True),
    Field("function_call", (CHAT,), only("none", why=NO_TOOLS), "`none` alone", True),
    Field("response_format", (CHAT,), format_of_text, '`{"type": "text"}` alone', True),
    Field("text", (RESPONSES,), text_options, '`{"format": {"type": "text"}}` alone', True),
    Field("truncation", (RESPONSES,), only("disabled", why="no text is left out"), "`disabled` alone", True),
    Field("modalities", (CHAT,), only(["text"], why="this model writes text"), '`["text"]` alone', True),
    Field("audio", (CHAT,), only(why="this model writes text"), "", True),
    Field("prediction", (CHAT,), only(why="nothing is predicted"), "", True),
    Field("reasoning_effort", (CHAT,), only("none", why="this model does not reason apart"), "`none` alone", True),
    Field("reasoning", (RESPONSES,), only({}, why="this model does not reason apart"), "", True),
    Field("verbosity", (CHAT,), only(why="it is a matter of the prompt"), "", True),
    Field("web_search_options", (CHAT,), only(why=NO_TOOLS), "", True),
    Field("moderation", (CHAT, RESPONSES), only(why="nothing is moderated"), "", True),
    Field("prompt_cache_options", (CHAT, RESPONSES), only(why="no prompt is kept"), "", True),
    Field("prompt_cache_retention", (CHAT, RESPONSES), only(why="no prompt is kept"), "", True),
    Field("context_management", (RESPONSES,), only(why="no text is left out"), "", True),
    Field("suffix", (COMPLETIONS,), only("", why="the model reads what comes before alone"), "", True),
    Field("generation_config", ALL, only(why="name what you want by the arguments of the protocol"), "", True),
)  # fmt: skip


def parse(body: Any, endpoint: str) -> dict[str, Any]:
    """The request's arguments by name, checked; what is null or left out is not in it.

    Raises:
        ApiError: not an object; an unknown argument, or one whose value cannot be done, by name.
    """
    if not isinstance(body, dict):
        raise bad("the request must be a JSON object")
    known = {field.name: field for field in FIELDS if endpoint in field.where}
    values = {}
    for name, value in body.items():
        if name not in known:
            raise bad(f"{shown(name)} is not an argument of {endpoint}; leave it out", str(name)[:SHOWN])
        if value is not None:
            values[name] = known[name].check(name, value)
    return values


@dataclass(frozen=True)
class Line:
    """Of the table of arguments: by endpoint ``done``, ``refused``, or nothing where there is no such argument."""

    name: str
    becomes: Mapping[str, str]
    what: str

    @property
    def refused(self) -> bool:
        return "done" not in self.becomes.values()


def table() -> list[Line]:
    """Every argument, in order."""
    lines = []
    for name in dict.fromkeys(field.name for field in FIELDS):
        fields = [field for field in FIELDS if field.name == name]
        becomes = {where: "refused" if field.refused else "done" for field in fields for where in field.where}
        told = [field for field in fields if field.what]
        whats = [field.what if len(told) == 1 else f"{' and '.join(field.where)}: {field.what}" for field in told]
        lines.append(Line(name, {where: becomes.get(where, "") for where in ALL}, "; ".join(whats)))
    return lines
