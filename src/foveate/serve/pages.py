"""Pages for people: whole in themselves, nothing is fetched from elsewhere."""

from __future__ import annotations

from html import escape
from string import Template

from fastapi.responses import HTMLResponse

from foveate.serve.fields import ALL, table

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$name: $title</title><style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
pre { background: #8881; padding: .8rem; overflow-x: auto; border-radius: 6px }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #8884; padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top }
.no { opacity: .55 }
</style></head><body>$body</body></html>""")
HOME = Template("""<h1>$name</h1>
<p>A language model behind the OpenAI interface. It reads and writes up to $context tokens; $batch answers are written
at once. <a href="docs">Every argument</a>, <a href="v1/models">models</a>, <a href="health">health</a>.</p>
<h2>From a shell</h2>
<pre>curl $base/v1/completions -H "Content-Type: application/json" \\
     -d '{"prompt": "It was a dark", "max_tokens": 50}'</pre>
<h2>From Python</h2>
<pre>from openai import OpenAI

client = OpenAI(base_url="$base/v1", api_key="none")
answer = client.completions.create(model="$name", prompt="It was a dark", max_tokens=50)
print(answer.choices[0].text)

for chunk in client.chat.completions.create(
    model="$name", messages=[{"role": "user", "content": "Tell me more."}], stream=True
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)</pre>""")
ENDPOINTS = (
    ("POST /v1/completions", "texts that go on"),
    ("POST /v1/chat/completions", "the next turn of a conversation"),
    ("POST /v1/responses", "one answer to an input"),
    ("GET /v1/models, GET /v1/models/NAME", "the one model there is"),
    ("GET /health", "whether the server works, how many answers it writes and how many requests wait"),
)


def home(name: str, context: int, batch: int, base: str) -> HTMLResponse:
    body = HOME.substitute(name=escape(name), context=f"{context:,}", batch=batch, base=escape(base))
    return HTMLResponse(PAGE.substitute(name=escape(name), title="a language model", body=body), headers=HEADERS)


def docs(name: str) -> HTMLResponse:
    endpoints = "".join(f"<tr><td><code>{e}</code></td><td>{what}</td></tr>" for e, what in ENDPOINTS)
    rows = ""
    for line in table():
        cells = "".join(f"<td>{line.becomes[where]}</td>" for where in ALL)
        what = escape(line.what).replace("`", "")
        rows += f"<tr{' class=no' if line.refused else ''}><td><code>{line.name}</code></td>{cells}<td>{what}</td></tr>"
    body = (
        f"<h1>{escape(name)}</h1><table>{endpoints}</table><h2>Arguments</h2>"
        f"<p>What is accepted is done. Anything else is answered with a 4xx that names the argument.</p>"
        f"<table><tr><th></th>{''.join(f'<th>{where}</th>' for where in ALL)}<th></th></tr>{rows}</table>"
    )
    return HTMLResponse(PAGE.substitute(name=escape(name), title="arguments", body=body), headers=HEADERS)


def markdown() -> str:
    """The table of the documents."""
    lines = [f"| | {' | '.join(ALL)} | |", "|---|---|---|---|---|"]
    lines += (
        f"| `{line.name}` | {' | '.join(line.becomes[where] for where in ALL)} | {line.what} |" for line in table()
    )
    return "\n".join(lines) + "\n"
