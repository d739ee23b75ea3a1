"""Probes: what is done to which text, how text is taken apart into words and tokens, and the words of the command."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from foveate.cli import main
from foveate.data.encode import encode_documents
from foveate.probes.items import find_tokens, shared_items, windows
from foveate.probes.plan import ShufflePlan
from foveate.probes.sequences import cut_sequences, split_at
from foveate.probes.shuffle import probe_shuffle, treated_context
from foveate.probes.treatments import Unit, permute
from foveate.probes.words import count_words, segment, vocabulary_of
from fuzz.harness import Target, accepts, quiet
from probes.planted import BagOfWords
from probes.word_models import tokenizers

WHOLE_PROBES = 1000  # one case in so many runs a whole probe, which resamples ten thousand times
TEXTS = (
    "The cat sat. \u201cAnd saw\u201d it\u2019s mat\u2014so far!",
    "naïve 東京\n\n moon",
    "",
    " \t\r\n",
    "a" * 40,
    "\U0001f600́́ 9's",
)
UNITS = ("token", "word", "sentence", "block:3", "block:0", "block:99999999", "words", "", "block:-1", "block:٣")
CONDITIONS = ("shuffle", "replace", "truncate", "original", "order", "")
PATTERNS = ("^#", "(", "a{99999999999}", "", ".", r"\b", "(?P<n>", "[", "^ = [^=]+ = $", "(?i", "\\")
SIZES = (2, 8, 3, 16, 64, 5, 1, 0, -1, 1000, 10**6, 1 << 40)
OPTIONS = (
    *("--context", "--boundary", "--sweep", "--conditions", "--unit", "--sequences", "--permutations", "--tolerance"),
    *("--suggest", "--batch", "--dtype", "--device", "--seed", "--split-at", "--text-field", "--json", "--bytes"),
    *("--buckets", "--top", "--train", "--data", "--help-me", "--", "-"),
)
WORDS = (
    *map(str, SIZES),
    *UNITS,
    *CONDITIONS,
    *PATTERNS,
    "1k",
    "nan",
    "inf",
    "-0.1",
    "0.05",
    "cpu",
    "cuda:99",
    "int8",
    "\0",
)


def probe(folder: Path) -> Target:
    quiet()
    known = tokenizers()
    finders = {name: find_tokens(tokenizer) for name, tokenizer in known.items()}
    (folder / "text.txt").write_text("".join(TEXTS), encoding="utf-8")
    text = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    size = st.sampled_from(SIZES)
    plans = st.fixed_dictionaries(
        {},
        optional={
            "context": size,
            "boundaries": st.lists(size, max_size=3).map(tuple),
            "conditions": st.lists(st.sampled_from(CONDITIONS), max_size=3).map(tuple),
            "units": st.lists(st.sampled_from(UNITS), max_size=3).map(tuple),
            "sequences": size,
            "permutations": size,
            "tolerance": st.floats() | st.just(0.05),
            "near": size,
            "seed": size,
        },
    )
    cases = st.fixed_dictionaries(
        {
            "texts": st.lists(text, max_size=4),
            "tokenizer": st.sampled_from(sorted(known)),
            "plan": plans,
            "unit": st.sampled_from(UNITS) | st.text(max_size=9),
            "context": st.integers(2, 40),
            "split_at": st.sampled_from(PATTERNS) | st.text(max_size=6),
            "words": st.lists(st.sampled_from((*OPTIONS, *WORDS)) | st.text(max_size=5), max_size=6),
            "lot": st.integers(0, WHOLE_PROBES - 1),
        }
    )

    def check(case: dict[str, Any]) -> bool:
        texts, tokenizer = case["texts"], known[case["tokenizer"]]
        accepts(lambda: _take_apart(texts, [finders["bytes"], finders[case["tokenizer"]]], case["context"]))
        accepts(lambda: list(split_at(texts, case["split_at"])))
        accepts(lambda: _shuffle_units(case["unit"], texts, tokenizer))
        if case["lot"] % 50 == 0:
            _run_command(folder, case["words"])
        if case["lot"] == 0:
            plan = {"context": 4, "sequences": 2, "permutations": 1} | case["plan"]
            accepts(lambda: probe_shuffle(BagOfWords(), known["bytes"], texts, ShufflePlan(**plan), progress=False))
        return accepts(lambda: _treat(case["plan"], texts, tokenizer))

    def vary(case: dict[str, Any], chance: Random) -> dict[str, Any]:
        pieces = [*TEXTS, *case["texts"]]
        varied = case | {
            "texts": ["".join(chance.choices(pieces, k=3))[: chance.randrange(80)] for _ in range(chance.randrange(4))],
            "tokenizer": chance.choice(sorted(known)),
            "context": chance.randrange(2, 40),
            "words": [chance.choice((*OPTIONS, *WORDS)) for _ in range(chance.randrange(6))],
            "lot": chance.randrange(WHOLE_PROBES),
        }
        name = chance.choice(("context", "sequences", "permutations", "near", "seed"))
        return varied | {"plan": case["plan"] | {name: chance.choice(SIZES)}}

    return Target(cases=cases, check=check, vary=vary)


def _take_apart(texts: list[str], finders: list[Any], context: int) -> None:
    """Every character is of one segment, every scored item of one window of at most ``context`` tokens."""
    vocabulary = vocabulary_of(texts)
    assert count_words(texts, vocabulary).total >= len(vocabulary)
    for text in texts:
        segments = segment(text)
        assert not text or segments.ends[-1] == len(text)
        assert (np.diff(segments.ends) > 0).all()
        tokenized = [find(text) for find in finders]
        items = shared_items(segments, tokenized)
        scored = 0
        for window in windows(items, context):
            assert scored <= window.scored < window.end
            scored = window.end
            for tokens in items.tokens:
                before = np.concatenate([[0], tokens])
                assert before[window.end] - before[window.start] <= context


def _shuffle_units(unit: str, texts: list[str], tokenizer: Any) -> None:
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    length = min(map(len, rows), default=0)
    parsed = Unit.parse(unit)
    if length:
        ids_Nb = np.array([row[:length] for row in rows])
        shuffled_NPb = permute(ids_Nb, parsed.number(ids_Nb, tokenizer), 2, np.random.default_rng(0))
        assert (np.sort(shuffled_NPb, 2) == np.sort(ids_Nb, 1)[:, None]).all()


def _treat(given: dict[str, Any], texts: list[str], tokenizer: Any) -> None:
    plan = ShufflePlan(**given)
    documents = [ids for _, ids in encode_documents(tokenizer, texts)]
    sequences = cut_sequences(documents, plan.context, plan.sequences, plan.seed)
    for treatment in plan.treatments():
        contexts_NPb = treated_context(treatment, sequences, documents, tokenizer, plan.seed)
        assert len(contexts_NPb) == len(sequences.ids)


def _run_command(folder: Path, words: list[str]) -> None:
    """There is no such model, so whatever else is right or wrong the command ends with 2 and one line."""
    text = str(folder / "text.txt")
    for start in (["shuffle", "nowhere", "--data", text], ["rare", "no", "where", "--data", text, "--train", text]):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(["probe", *start, *words])
        lines = said.getvalue().splitlines()
        assert code == 2, (start, words, lines)
        assert len(lines) == 1, (start, words, lines)
