import numpy as np
import pytest
import torch

from contracts.checks import check_calls, make_decoder, make_rows
from contracts.walks import WALKS, small, whole_length
from foveate.errors import FoveateError


def test_no_tokens_and_no_rows() -> None:
    decoder = make_decoder(WALKS["nested"])
    x_BTD = torch.stack(make_rows(decoder, [5, 5]))
    cache = decoder.make_cache(2)
    with torch.no_grad():
        assert decoder(x_BTD[:, :0], cache).shape == (2, 0, 8)
        assert decoder(x_BTD, cache, np.array([0, 0])).shape == (2, 5, 8)
        assert cache.lengths == 0
        assert decoder(x_BTD[:0]).shape == (0, 5, 8)
        torch.testing.assert_close(decoder(x_BTD, cache), decoder(x_BTD), atol=1e-10, rtol=0)


def test_what_is_read_without_gradients_lets_go_of_an_earlier_graph() -> None:
    decoder = make_decoder(WALKS["nested"])
    cache = decoder.make_cache(1)
    x_BTD = make_rows(decoder, [18])[0][None]
    decoder(x_BTD[:, :9], cache)
    assert all(buffer.data.requires_grad for buffer in cache.buffers if not buffer.empty)
    with torch.no_grad():
        decoder(x_BTD[:, 9:], cache)
    assert not any(buffer.data.requires_grad for buffer in cache.buffers if not buffer.empty)


def test_reading_on_without_gradients_leaves_an_earlier_graph_whole() -> None:
    for name in ("vanilla", "windows", "fovea", "nested"):
        decoder = make_decoder(WALKS[name])
        cache = decoder.make_cache(1)
        x_BTD = make_rows(decoder, [18])[0][None]
        first = decoder(x_BTD[:, :9], cache)
        with torch.no_grad():
            decoder(x_BTD[:, 9:], cache)
        found = torch.autograd.grad(first.sin().sum(), list(decoder.parameters()), allow_unused=True)
        expected = torch.autograd.grad(decoder(x_BTD[:, :9]).sin().sum(), list(decoder.parameters()), allow_unused=True)
        for one, other in zip(found, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)


def test_gradients_of_a_first_call_do_not_depend_on_a_cache() -> None:
    for name in ("nested", "windows", "fovea", "mean_repeat"):
        decoder = make_decoder(WALKS[name])
        x_BTD = torch.stack(make_rows(decoder, [whole_length(decoder.spec)] * 2))
        both = [
            torch.autograd.grad(decoder(x_BTD, cache).sin().sum(), list(decoder.parameters()))
            for cache in (None, decoder.make_cache(2))
        ]
        for without, within in zip(*both, strict=True):
            torch.testing.assert_close(within, without)


def test_a_call_after_inference_mode_goes_on() -> None:
    decoder = make_decoder(WALKS["windows"])
    x_BTD = torch.stack(make_rows(decoder, [13, 13]))
    cache = decoder.make_cache(2)
    with torch.inference_mode():
        decoder(x_BTD[:, :7], cache)
    with torch.no_grad():
        rest = decoder(x_BTD[:, 7:], cache)
        torch.testing.assert_close(rest, decoder(x_BTD)[:, 7:], atol=1e-10, rtol=0)


def test_per_token_work_of_decoding_does_not_touch_coarse_layers() -> None:
    """Between two units of the coarse level its layers are not called at all, and nothing else runs on their width."""
    decoder = make_decoder(small("1@1 2@8 1@1", levels={8: {"width": 12, "heads": 2}}))
    seen = []
    for module in decoder.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, args, out: seen.append(out.shape[-1]))
    cache = decoder.make_cache(1)
    x_TD = make_rows(decoder, [16])[0]
    with torch.no_grad():
        decoder(x_TD[None, :8], cache)
        assert 12 in seen
        seen.clear()
        for t in range(8, 15):
            decoder(x_TD[None, t : t + 1], cache)
        assert 12 not in {width for width in seen if width != decoder.spec.levels[0].feed_forward}


@pytest.mark.parametrize("name", WALKS)
def test_whole_batches_change_nothing_but_the_rows_that_layers_see(name: str) -> None:
    decoder = make_decoder(WALKS[name])
    decoder.whole_batches = True
    rows: set[int] = set()
    for step in decoder.steps:
        for layer in getattr(step, "layers", ()):
            layer.register_forward_hook(lambda layer, given, out: rows.add(len(given[0])))
    check_calls(decoder, [[3, 20, 0, 7], *[[1, 1, 1, 1]] * 9, [2, 0, 5, 1], [0, 1, 0, 1]])
    assert rows == {1, 4}, "one row alone, and the whole batch"


@pytest.mark.parametrize("name", ["vanilla", "nested", "windows", "fovea"])
def test_gradients_reach_a_prefix_that_a_frozen_model_has_read(name: str) -> None:
    decoder = make_decoder(WALKS[name]).requires_grad_(False)
    x_BTD = make_rows(decoder, [18])[0][None]
    prefix = x_BTD[:, :9].clone().requires_grad_()
    cache = decoder.make_cache(1)
    decoder(prefix, cache)
    later = torch.cat([decoder(part, cache) for part in x_BTD[:, 9:].split(3, 1)], 1)
    whole = decoder(torch.cat((prefix, x_BTD[:, 9:]), 1))[:, 9:]
    found, expected = (torch.autograd.grad(out.sin().sum(), prefix)[0] for out in (later, whole))
    assert expected.any()
    torch.testing.assert_close(found, expected)


def test_branches_start_by_the_depth_of_their_level_over_all_runs() -> None:
    decoder = make_decoder(small("2@1 1@4 3@1"))
    depths = [{m.depth for m in step.modules() if getattr(m, "depth", None)} for step in decoder.steps]
    assert [found for found in depths if found] == [{5}, {1}, {5}]


@pytest.mark.parametrize("beside", ["a cache", "counts"])
def test_documents_are_read_whole(beside: str) -> None:
    decoder = make_decoder(small("1@1"))
    x_BTD = make_rows(decoder, [6])[0][None]
    cache, counts = (decoder.make_cache(1), None) if beside == "a cache" else (None, np.array([4]))
    with pytest.raises(FoveateError, match="without a cache and without counts"):
        decoder(x_BTD, cache, counts, documents=torch.zeros(1, 6, dtype=torch.int64))


def test_documents_are_numbered_upwards() -> None:
    decoder = make_decoder(small("1@1"))
    with pytest.raises(FoveateError, match="row 0 goes from 1 to 0 at column 3"):
        decoder(make_rows(decoder, [4])[0][None], documents=torch.tensor([[0, 1, 1, 0]]))
