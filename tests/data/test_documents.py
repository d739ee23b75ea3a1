"""Names of data become documents, in a fixed order, or one clear line."""

import json
import sys
import types

import pytest

from foveate.data import hub
from foveate.data.documents import fingerprint, read_documents, read_pieces
from foveate.data.hub import HubDataset
from foveate.data.reading import Reading, say
from foveate.errors import FoveateError


def read(*data: str, **options) -> list[str]:
    return list(read_documents(data, reading=Reading(**options)))


def error_of(*data: str, **options) -> str:
    with pytest.raises(FoveateError) as caught:
        read(*data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "b.txt": "b",
        "a.md": "a",
        "sub/deep/c": "c",
        "sub/empty": "",
        ".git/x": "x",
        "a-.txt": "a-",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "sub" / "d.jsonl").write_text('{"text": "d1"}\n{"text": ""}\n{"text": "d2"}\n')
    return tmp_path


def test_a_folder_is_read_whole_and_sorted_without_hidden_and_empty_files(folder):
    assert read(str(folder)) == ["a-", "a", "b", "d1", "d2", "c"]


def test_entries_keep_their_order(folder):
    assert read(f"{folder}/b.txt", f"{folder}/a.md") == ["b", "a"]
    assert list(read_documents(f"{folder}/b.txt")) == ["b"]


def test_globs(folder):
    assert read(f"{folder}/*.txt") == ["a-", "b"]
    assert read(f"{folder}/**/[cd]*") == ["d1", "d2", "c"]
    (folder / "odd[1].txt").write_text("literally")
    assert read(f"{folder}/odd[1].txt") == ["literally"]


def test_the_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert read("~/b.txt", "~/a*.md") == ["b", "a"]


def test_the_bundled_books(tmp_path, monkeypatch):
    (tmp_path / "books").mkdir()
    monkeypatch.chdir(tmp_path)
    books = read("books")
    assert len(books) == 17
    assert sum(len(book.encode()) for book in books) == 7_398_875
    assert any("Call me Ishmael." in book for book in books)
    assert not any("project gutenberg" in book.lower() or "\r" in book for book in books)
    assert "folder without files" in error_of("./books")


def test_what_is_missing_is_reported_at_once(folder):
    with pytest.raises(FoveateError, match="no such file or folder"):
        read_documents([f"{folder}/b.txt", f"{folder}/nope.txt"])
    with pytest.raises(FoveateError, match="no file matches"):
        read_documents([f"{folder}/*.nope"])
    with pytest.raises(FoveateError, match="'': there is no such file"):
        read_documents([""])
    with pytest.raises(FoveateError, match="no file matches"):
        read_documents([f"{folder}/sub*"])
    with pytest.raises(FoveateError, match="no data is given"):
        read_documents([])
    with pytest.raises(FoveateError, match="no regular file"):
        read_documents(["/dev/null"])
    with pytest.raises(FoveateError, match="cannot be read: File name too long"):
        read_documents(["x" * 5000])


@pytest.mark.parametrize("raw", [b"", b" \n\t\r\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_an_entry_without_text(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)
    (tmp_path / "good.txt").write_text("good")
    assert f"data '{tmp_path / name}' has no text" in error_of(str(tmp_path / "good.txt"), str(tmp_path / name))


def test_the_fingerprint_does_not_depend_on_where_files_lie(folder, tmp_path_factory):
    before = fingerprint([f"{folder}/b.txt", f"{folder}/a.md"])
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "x.txt").write_text("b")
    (elsewhere / "y.txt").write_text("a")
    assert fingerprint([f"{elsewhere}/*.txt"]) == before
    (elsewhere / "y.txt").write_text("a ")
    assert fingerprint([f"{elsewhere}/*.txt"]) != before


@pytest.fixture
def rows(monkeypatch):
    """The datasets library with ``load_dataset`` answering from memory; gives the calls it got."""
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        if "nope" in args[0]:
            raise datasets.exceptions.DatasetNotFoundError("Dataset 'nope' doesn't exist\non the hub")
        return datasets.Dataset.from_dict({"id": [1, 2, 3], "text": ["one\r\n", "", "two"], "gap": ["x", None, "y"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: True)
    hub._load.cache_clear()
    yield calls
    hub._load.cache_clear()


def test_a_dataset_of_the_hub(rows):
    assert read("hf:some/name") == ["one\r\n", "two"]
    assert read("hf:some/name:config:train[:1%]") == ["one\r\n", "two"]
    assert rows == [(("some/name", None), {"split": "train"}), (("some/name", "config"), {"split": "train[:1%]"})]
    assert fingerprint(["hf:some/name"]) == fingerprint(["hf:some/name"])


def test_a_dataset_that_cannot_be_used(rows):
    assert "no field 'body'; it has id, text, gap" in error_of("hf:some/name", text_field="body")
    assert "row 2: the field 'gap' holds NoneType" in error_of("hf:some/name", text_field="gap")
    assert "cannot be loaded: Dataset 'nope' doesn't exist on the hub" in error_of("hf:nope")
    assert "names no dataset" in error_of("hf:")


def test_no_hub_and_no_datasets_library(rows, monkeypatch):
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert "hub cannot be reached" in error_of("hf:some/name")
    assert rows == []
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "install foveate[hub]" in error_of("hf:some/name")


def test_the_hub_is_asked_only_once(monkeypatch):
    asked = []

    def head(url, **options):
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: types.SimpleNamespace(head=head))
    assert not hub.hub_is_reachable()
    assert len(asked) == 1


def test_a_folder_that_save_to_disk_has_made(tmp_path, rows):
    datasets = pytest.importorskip("datasets")
    texts = ["one\r\n", "漢字", "two"]
    for place in ("here", "there"):
        datasets.Dataset.from_dict({"text": texts, "id": [1, 2, 3]}).save_to_disk(tmp_path / place)
        assert read(str(tmp_path / place)) == read(f"hf:{tmp_path / place}") == texts
    assert fingerprint([f"{tmp_path}/here"]) == fingerprint([f"{tmp_path}/there"])
    assert [text for _, text in HubDataset(name=f"hf:{tmp_path}/here").stream("text")] == texts
    assert "no field 'body'; it has text, id" in error_of(str(tmp_path / "here"), text_field="body")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": texts})}).save_to_disk(tmp_path / "several")
    assert error_of(str(tmp_path / "several")).endswith(f"name those to read: {tmp_path / 'several' / 'train'}")
    assert read(str(tmp_path / "several" / "train")) == texts
    assert rows == [], "no hub was asked"


def test_what_cannot_be_read_can_be_left_out(folder, capsys):
    (folder / "broken.jsonl").write_text('{"text": "first"}\n{"text": \n')
    (folder / "a.bin").write_bytes(b"\0")
    assert "a.bin is not text" in error_of(str(folder))
    say.cache_clear()
    assert read(str(folder), skip_unreadable=True) == ["a-", "a", "b", "first", "d1", "d2", "c"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith(f"left out: {folder}/a.bin is not text")
    assert said[1].startswith(f"left out: {folder}/broken.jsonl, line 2 is not JSON")
    assert "has no text" in error_of(f"{folder}/a.bin", skip_unreadable=True)


def test_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\r\nb\rc\n\r\n")
    (tmp_path / "b.jsonl").write_text('{"text": "d\\r\\ne"}')
    data = [f"{tmp_path}/a.txt", f"{tmp_path}/b.jsonl"]
    assert read(*data) == ["a\r\nb\rc\n\r\n", "d\r\ne"]
    assert read(*data, newlines="unix") == ["a\nb\nc\n\n", "d\ne"]
    assert "".join(read_pieces(data, reading=Reading(newlines="unix"))) == "a\nb\nc\n\nd\ne"
    with pytest.raises(FoveateError, match="--newlines: 'dos' is none of keep, unix"):
        Reading(newlines="dos")


def test_a_local_folder_of_parquet_through_the_datasets_library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    rows = [{"text": f"row {i}\r\n"} for i in range(600)]
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(f"hf:{tmp_path}/set") == [row["text"] for row in rows]
