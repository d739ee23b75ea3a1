"""The table and the sentences."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from foveate.errors import FoveateError
from foveate.report.results import Results
from foveate.report.tables import headline, print_table, rows
from foveate.report.units import data_size, duration, quantity, ratio, signed


def cells(results, label: str, section: str = "") -> list[tuple[str, str]]:
    row = next(row for row in rows(results) if row.label.strip() == label and section in row.section)
    return [(cell.text, cell.relation) for cell in row.cells]


def test_values_stand_with_their_relation_to_the_first_model(results) -> None:
    assert cells(results, "kept for backward") == [("137 MB", ""), ("97 MB", "0.71x"), ("57 MB", "0.42x")]
    assert cells(results, "tokens per second") == [("5k", ""), ("10k", "2.00x"), ("15k", "3.00x")]
    assert cells(results, "ms per token", "512") == [("3", ""), ("2", "0.67x"), ("1", "0.33x")]
    assert cells(results, "parameters") == [("1.87M", ""), ("3.74M", ""), ("5.61M", "")]


def test_what_is_not_known_is_left_empty(results, two_untrained) -> None:
    assert cells(results, "as predicted", "training") == [("136 MB", ""), ("96 MB", ""), ("", "")]
    assert cells(results, "trained on tokens") == [("1M", ""), ("1M", ""), ("", "")]
    assert "trained on tokens" not in [row.label for row in rows(two_untrained)]


def test_a_model_that_is_not_a_walk_goes_by_its_type(results) -> None:
    assert [text for text, _ in cells(results, "walk")] == ["8@1", "1@1 16@4", "llama"]


def test_differences_show_their_interval(results) -> None:
    assert cells(results, "less those of plain <8>")[1] == ("−0.0200 [−0.0300, −0.0100]", "")


def test_bytes_per_token_matter_where_tokens_differ(results) -> None:
    assert not any(row.label == "bytes per token" for row in rows(results))
    results.one("quality", "llama")["tokens"] = 30_000
    assert cells(results, "bytes per token")[2] == ("4.900", "")


def test_sentences_say_how_sure_they_are(results) -> None:
    sure, unsure = headline(results)
    assert sure.startswith("multi & scale: 17 layers against 8, 0.71x of the memory kept for backward, ")
    assert sure.endswith("0.020 bits per byte better.")
    assert unsure.endswith("0.020 bits per byte better (not clearly: the interval holds 0).")
    results.one("difference", "llama").update(low=None, high=None)
    assert headline(results)[1].endswith("(too little text to say how surely).")


def test_the_table_is_readable_in_a_plain_log(results) -> None:
    file = io.StringIO()
    print_table(results, Console(file=file, width=110))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0].split("  ")[-1].strip() == "llama" or "llama" in lines[0]
    (kept,) = [line for line in lines if line.startswith("kept for backward")]
    assert kept.split() == ["kept", "for", "backward", "↓", "137", "MB", "97", "MB", "0.71x", "57", "MB", "0.42x"]


def test_results_are_read_back_as_they_were_written(results) -> None:
    assert Results.parse(results.to_lines()).records == results.records


@pytest.mark.parametrize("lines", ["", "{}", "[1]", "no json", '{"kind": "model"}', '{"kind": "setup"}'])
def test_other_files_are_no_results(lines) -> None:
    with pytest.raises(FoveateError, match="not the results of a comparison"):
        Results.parse(lines)


def test_numbers_as_people_read_them() -> None:
    assert [quantity(n) for n in (0, 999, 1000, 8192, 1.234e6)] == ["0", "999", "1k", "8.19k", "1.23M"]
    assert [data_size(n) for n in (999, 1e6)] == ["999 B", "1 MB"]
    assert [duration(s) for s in (8.4, 250, 3700)] == ["8 s", "4 min 10 s", "1 h 01 min"]
    assert (ratio(1, 3), ratio(1, 0), signed(-0.02)) == ("0.33x", "", "−0.0200")
