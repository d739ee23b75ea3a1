"""Garbage on every control, visitors who leave, many at once: one line each, and the page goes on."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from typing import Any

import pytest
import torch

from foveate.errors import FoveateError
from foveate.pages.shelf import Shelf
from foveate.pages.work import WAITING, Job, Stopped, Worker
from foveate.serve.errors import ApiError
from pages.conftest import TEXT


def portuguese(client: Any, message: str) -> bool:
    """Whether the page says that line of the server's in Portuguese."""
    text = client.get("/messages.js").text
    known = json.loads(text[text.index("= [") + 2 : text.rindex("]") + 1])
    for english, translation in known:
        assert set(re.findall(r"\{\w+\}", translation)) <= set(re.findall(r"\{\w+\}", english))
    patterns = (".+?".join(map(re.escape, re.split(r"\{\w+\}", english))) for english, _ in known)
    return any(re.fullmatch(pattern, message, re.S) for pattern in patterns)


GOOD = {
    "look": {"model": "llama", "text": TEXT, "token": 3, "layer": 0, "head": 0, "near": 8, "opened": 2},
    "surprise": {"models": ["hourglass", "llama"], "text": TEXT},
    "scramble": {"model": "llama", "text": TEXT, "boundary": 9, "unit": "token", "permutations": 1, "seed": 0},
    "write": {"model": "llama", "prompt": "a", "tokens": 2, "temperature": 0.5, "seed": 1},
    "compare": {"models": ["plain", "hourglass"], "effort": "quick"},
}
JUNK = ["", "no such", -5, 10**30, 1.5, True, [], {}, ["x"], "\ud800", "\x00"]
# which take what looks like junk: any text, any number of some size
MEANT = {("write", "prompt"), ("write", "temperature"), ("scramble", "seed")}


@pytest.mark.parametrize(("view", "field"), [(view, field) for view, fields in GOOD.items() for field in fields])
def test_junk_in_a_field_is_a_line_that_names_it(client: Any, view: str, field: str) -> None:
    for junk in JUNK:
        body = {**GOOD[view], field: junk}
        answer = client.post(f"/api/{view}", content=json.dumps(body), headers={"Content-Type": "application/json"})
        if answer.status_code == 200:
            assert view != "compare", "it would measure"
            assert (view, field) in MEANT or (isinstance(junk, str) and field == "text"), (view, field, junk)
            continue
        message = answer.json()["error"]["message"]
        assert answer.status_code == 400, message
        assert "\n" not in message
        assert "Traceback" not in message
        assert field.rstrip("s") in message or "Unicode" in message, message
        assert portuguese(client, message), message


@pytest.mark.parametrize(
    ("view", "changes", "line"),
    [
        ("look", {"text": ""}, "text: there is none; write or paste some"),
        ("look", {"text": "x" * 300}, "text: it has 300 tokens, and 255 are the most here; take a part of it"),
        ("look", {"text": "x" * 400_001}, "text: it has 400,001 characters, and 400,000 are the most here"),
        (
            "look",
            {"token": 8000},
            f"token: 8000 is not one of the {len(TEXT.encode())} of the text, which count from 0",
        ),
        ("look", {"layer": 2}, "layer: 2 is not one of the 2 layers, which count from 0"),
        ("look", {"head": 2}, "head: 2 is not one of the 2 heads, which count from 0"),
        ("look", {"model": "zoom"}, "near: zoom reads far text as its walk says (2@1:zoom8,"),
        ("look", {"model": "nobody"}, "model: there is none named 'nobody'; there are"),
        ("look", {"more": 1}, "'more' is no field of this; leave it out"),
        ("surprise", {"models": ["llama", "llama"]}, "models: choose 1 to 2 models, each once"),
        ("scramble", {"boundary": 4000}, "boundary: 4,000 must be from 1 to"),
        ("scramble", {"text": "x"}, "text: it is one token, and scrambling takes at least two"),
        ("write", {"tokens": 2000}, "tokens: 2,000 after a prompt of 2 are more than the 256 positions of llama"),
        ("compare", {"effort": "some"}, "effort: 'some' is unknown; choose of quick, full"),
    ],
)
def test_what_is_out_of_range(client: Any, view: str, changes: Any, line: str) -> None:
    answer = client.post(f"/api/{view}", json={**GOOD[view], **changes})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(line)


def test_paths_and_bodies_that_are_none(client: Any) -> None:
    for path in ("/nothing", "/..%2f..%2fetc%2fpasswd", "/api/models/x", "/work.py"):
        assert client.get(path).status_code == 404
    assert client.get("/api/look").status_code == 405
    assert client.post("/api/look", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/api/look", json=[1]).status_code == 400
    assert (
        client.get("/api/run?name=hourglass").json()["error"]["message"].startswith("hourglass is a model, not a run")
    )
    for given in ("name=hourglass&after=-1", "name=hourglass&log=x", "name=nobody", ""):
        assert client.get(f"/api/run?{given}").status_code == 400
    assert client.get("/api/memory?name=llama").status_code == 400


def test_another_host_is_not_answered(shelf: Any) -> None:
    from starlette.testclient import TestClient

    from foveate.pages.server import build_pages

    with TestClient(build_pages(shelf, hosts=("127.0.0.1",)), base_url="http://127.0.0.1") as client:
        assert client.get("/").status_code == 200
        refused = client.get("/api/models", headers={"Host": "evil.example"})
        assert refused.status_code == 421


def test_the_page_asks_nobody_else(client: Any) -> None:
    from importlib import resources

    names = {path.name for path in (resources.files("foveate.pages") / "static").iterdir()}
    assert {"index.html", "app.js", "app.css"} <= names
    for name in (*names, "base.css", ""):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert [
            word for word in ("http://", "https://", "//cdn") if word in answer.text.replace("http://www.w3.org", "")
        ] == []


def test_both_languages_have_every_word(client: Any) -> None:
    text = client.get("/words.js").text
    english, portuguese = text.split("  pt: {")
    keys = [re.findall(r"(?:^|, |    )(\w+): \"", part, re.M) for part in (english, portuguese)]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 90
    assert set(re.findall(r'data-word="(\w+)"', client.get("/").text)) <= set(keys[0])
    rest = "".join(client.get(f"/{name}.js").text for name in (*GOOD, "app", "tools", "train")) + client.get("/").text
    kinds = {"first_of_sentence", "between_words", "seen_before", "new_word", "name", "number"}
    assert [key for key in keys[0] if key not in kinds and f'"{key}"' not in rest and f"{key}_" not in rest] == []


def test_a_model_that_has_gone_or_does_not_fit(folder: Any, tmp_path: Any, monkeypatch: Any) -> None:
    shutil.copytree(folder / "llama", tmp_path / "llama")
    shelf = Shelf([tmp_path], device="cpu")
    assert shelf.reader("llama") is shelf.reader("llama")
    monkeypatch.setattr("foveate.pages.shelf.free_memory", lambda device: 1000)
    with pytest.raises(FoveateError, match=r"llama takes 0.0 GiB of memory, of which 0.0 GiB are free"):
        Shelf([tmp_path], device="cpu").reader("llama")
    shutil.rmtree(tmp_path / "llama")
    with pytest.raises(FoveateError, match="llama has gone: there is nothing at"):
        shelf.reader("llama")
    assert "has gone" in shelf.describe()[0]["error"]
    for path, line in ((tmp_path / "no", "no such directory"), (tmp_path, "none in the folders there")):
        with pytest.raises(FoveateError, match=line):
            Shelf([path])


def test_a_damaged_model_is_named_and_the_others_are_shown(folder: Any, tmp_path: Any) -> None:
    for name in ("llama", "plain"):
        shutil.copytree(folder / name, tmp_path / name)
    (tmp_path / "llama" / "config.json").write_text("{")
    told = {each["name"]: each for each in Shelf([tmp_path]).describe()}
    assert told["llama"]["error"]
    assert (told["plain"]["error"], told["plain"]["walk"]) == (None, "2@1")


def test_work_is_stopped_and_the_queue_is_bounded() -> None:
    worker, begun, go_on = Worker(), threading.Event(), threading.Event()
    done: list[str] = []

    def endless(job: Job) -> None:
        begun.set()
        go_on.wait(60)
        while True:
            job.tell(progress=0.5)

    async def visit() -> None:
        worker.start()
        first = worker.submit(endless)
        await asyncio.to_thread(begun.wait, 60)
        left = worker.submit(lambda job: done.append("left"))
        stays = worker.submit(lambda job: done.append("stays"))
        rest = [worker.submit(lambda job: None) for _ in range(WAITING - 2)]
        with pytest.raises(ApiError, match="too many visitors wait already"):
            worker.submit(lambda job: None)
        left.stop()
        first.stop()
        go_on.set()
        while "error" not in (event := await first.events.get()):
            pass
        assert event == {"error": "stopped", "status": 409}
        assert await stays.events.get() == {"result": None}
        assert [await each.events.get() for each in rest] == [{"result": None}] * len(rest)
        assert done == ["stays"], "who has gone before his turn is not worked for"

    asyncio.run(visit())
    worker.interrupt()
    with pytest.raises(ApiError):
        worker.submit(lambda job: None)


def test_stopping_does_not_wait_for_the_next_event() -> None:
    """A model that runs and tells nothing is left at its next layer, and runs again afterwards."""
    worker, begun = Worker(), threading.Event()
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)

    def silent(job: Job) -> None:
        while True:
            layer(x)
            begun.set()

    async def visit() -> list[Any]:
        worker.start()
        job = worker.submit(silent)
        await asyncio.to_thread(begun.wait, 60)
        job.stop()
        layer(x)  # in another thread nothing is stopped
        after = worker.submit(lambda job: layer(x).shape)
        return [await job.events.get(), await after.events.get()]

    assert asyncio.run(visit()) == [{"error": "stopped", "status": 409}, {"result": (1, 4)}]
    worker.interrupt()


def test_what_fails_is_a_line() -> None:
    def told(error: Exception) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            worker = Worker()
            worker.start()

            def fail(job: Job) -> None:
                raise error

            event = await worker.submit(fail).events.get()
            worker.interrupt()
            return event

        return asyncio.run(ask())

    assert told(MemoryError())["error"].startswith("there is not enough memory for this")
    assert told(RuntimeError("DefaultCPUAllocator: can't allocate memory"))["status"] == 400
    assert told(ZeroDivisionError("a\nb")) == {"error": "internal error: ZeroDivisionError: a", "status": 500}
    assert told(FoveateError("so\nit is")) == {"error": "so it is", "status": 400}
    assert told(Stopped())["status"] == 409


def test_thirty_visitors_are_all_answered(shelf: Any) -> None:
    import httpx

    from foveate.pages.server import build_pages
    from foveate.serve.server import served

    app = build_pages(shelf, hosts=("127.0.0.1",))

    async def visit(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=address, timeout=300) as client:
            views = [view for view in GOOD if view != "compare"]
            return await asyncio.gather(
                *(client.post(f"/api/{view}", json=GOOD[view]) for view in (views * 8)[:30]), client.get("/api/models")
            )

    with served(app, app.state.worker) as address:
        answers = asyncio.run(visit(address))
    assert [answer.status_code for answer in answers] == [200] * 31
    assert all("result" in json.loads(answer.text.splitlines()[-1]) for answer in answers[:30])
