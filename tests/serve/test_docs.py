"""The documents say what the server does."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveate.serve.errors import ApiError
from foveate.serve.fields import ALL, FIELDS, parse
from foveate.serve.pages import markdown

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def test_the_table_of_arguments_is_the_servers_own() -> None:
    assert markdown() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("endpoint", ALL)
def test_every_argument_of_openais_client_is_done_or_refused_by_name(endpoint: str) -> None:
    from openai.types import completion_create_params
    from openai.types.chat import completion_create_params as chat_params
    from openai.types.responses import response_create_params

    asked = {
        "completions": completion_create_params.CompletionCreateParamsNonStreaming,
        "chat": chat_params.CompletionCreateParamsNonStreaming,
        "responses": response_create_params.ResponseCreateParamsNonStreaming,
    }[endpoint].__annotations__
    done = {field.name for field in FIELDS if endpoint in field.where and not field.refused}
    assert {"model", "temperature", "top_p", "stream", "user"} <= done & set(asked)
    for name in set(asked) - done:
        with pytest.raises(ApiError, match=name) as caught:
            parse({name: object()}, endpoint)
        assert str(caught.value.param).partition(".")[0] == name
