"""What other people's clients get of a server, as JSON; in a process of their own, for what they leave behind."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

SAID = [{"role": "user", "content": "a cat"}]


def langchain(address: str) -> dict[str, Any]:
    from langchain_openai import ChatOpenAI, OpenAI

    where: Any = {"model": "moon", "base_url": f"{address}/v1", "api_key": "none", "max_retries": 0}
    where |= {"temperature": 0, "max_tokens": 8}
    texts, chat = OpenAI(**where), ChatOpenAI(**where)
    said = [("human", "a cat")]
    answer = chat.invoke(said)
    return {
        "text": texts.invoke("the cat"),
        "streamed text": "".join(texts.stream("the cat")),
        "texts": texts.batch(["the cat", "a"]),
        "chat": answer.content,
        "streamed chat": "".join(str(chunk.content) for chunk in chat.stream(said)),
        "tokens": answer.usage_metadata["output_tokens"],
        "response": ChatOpenAI(**where, use_responses_api=True).invoke(said).content[0]["text"],
    }


def litellm(address: str) -> dict[str, Any]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # what it would fetch otherwise
    import litellm as client

    where: Any = {"api_base": f"{address}/v1", "api_key": "none", "temperature": 0, "max_tokens": 8, "num_retries": 0}
    chat: Any = client.completion(model="openai/moon", messages=SAID, seed=3, stop=["never"], **where)
    stream: Any = client.completion(model="openai/moon", messages=SAID, stream=True, **where)
    text: Any = client.text_completion(model="text-completion-openai/moon", prompt="the cat", **where)
    try:
        client.completion(model="openai/moon", messages=SAID, top_p=7, **where)
        refused = ""
    except client.BadRequestError as error:
        refused = str(error)
    return {
        "chat": chat.choices[0].message.content,
        "streamed chat": "".join(chunk.choices[0].delta.content or "" for chunk in stream),
        "text": text.choices[0].text,
        "refused": refused,
    }


if __name__ == "__main__":
    print("\n" + json.dumps({"langchain": langchain, "litellm": litellm}[sys.argv[1]](sys.argv[2])))
