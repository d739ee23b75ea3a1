import numpy as np
import pytest
import torch

from contracts.checks import make_decoder, make_rows
from contracts.walks import WALKS, small, whole_length
from foveate.model.clock import Units
from foveate.model.fovea import FoveaBuffer
from foveate.model.fovea_plan import Planner, first_seen, seen_slots
from foveate.model.rotary import Rotary
from foveate.model.slots import RegionSlots
from foveate.spec import Attention, Fovea

CPU = torch.device("cpu")


def test_keys_of_a_query_grow_with_the_logarithm_of_the_context() -> None:
    fovea = Attention.parse("fovea8,groups=4,scales=4/16")
    assert isinstance(fovea, Fovea)
    keys = []
    for power in range(3, 10):
        plan = Planner(fovea, Units(4**power, 1), None, CPU).plan(Rotary(4, 100.0), torch.float32)
        keys.append(int((plan.mask == 0).sum(-1).max()))
    assert max(np.diff(keys)) <= 4
    assert keys[-1] <= 2 * 8 + 4 * 10


@pytest.mark.parametrize(
    "text", ["fovea8,groups=4,scales=4/8", "fovea8,groups=5,tail=keep", "fovea4,groups=4,scales=2/4/16", "fovea"]
)
@pytest.mark.parametrize("slack", [0, 5])
def test_slots_seen_by_one_unit_are_as_many_as_its_keys(text: str, slack: int) -> None:
    fovea = Attention.parse(text)
    assert isinstance(fovea, Fovea)
    slots = RegionSlots(fovea=fovea, slack=slack)
    for units in (*range(1, 400), 10_000):
        block, place = divmod(units - 1, fovea.block)
        capacity = slots.size(units) + 3
        alone = first_seen(fovea, slots, block, capacity, CPU) <= place
        together = seen_slots(fovea, slots, torch.tensor([[units - 1]]), units, capacity)[0]
        assert torch.equal(alone, together)
        assert fovea.keys_read(units) == alone.sum() == len(fovea.seen(units - 1))


def test_nothing_the_fovea_keeps_grows_with_the_context() -> None:
    decoder = make_decoder(small("1@1:fovea4,groups=4,scales=2/4"), dtype=torch.float32)
    sizes = []
    for tokens in (1_000, 4_000, 64_000):
        cache = decoder.make_cache(1)
        cache.fill(tokens, torch.float32, torch.device("cpu"))
        sizes.append(cache.buffers[0].capacity)
    assert sizes[1] - sizes[0] <= 3 + 1
    assert sizes[2] - sizes[1] <= 2 * (3 + 1)


def test_a_tail_that_is_kept_keeps_each_group_once() -> None:
    decoder = make_decoder(small("1@1:fovea4,groups=4,scales=2/4,tail=keep"), dtype=torch.float32)
    cache = decoder.make_cache(1)
    cache.fill(64_000, torch.float32, torch.device("cpu"))
    assert 16_000 < cache.buffers[0].capacity < 16_200


@pytest.mark.parametrize("name", ["fovea", "fovea_keep"])
def test_blocks_may_be_read_a_few_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = make_decoder(WALKS[name])
    x_BTD = torch.stack(make_rows(decoder, [whole_length(decoder.spec)] * 3))
    counts = np.array([x_BTD.shape[1], 5, x_BTD.shape[1] - 7])
    at_once = decoder(x_BTD), decoder(x_BTD, None, counts)
    for keys in (1, 300):
        monkeypatch.setattr("foveate.model.fovea.GATHERED_KEYS", keys)
        with torch.no_grad():
            torch.testing.assert_close(decoder(x_BTD), at_once[0])
            parts = decoder(x_BTD, None, counts)
        for row, count in enumerate(counts):
            torch.testing.assert_close(parts[row, :count], at_once[1][row, :count])


def test_the_mask_of_one_unit_follows_its_block_its_room_and_its_slack() -> None:
    fovea = Attention.parse("fovea4,groups=4,scales=2/4")
    shape = {"stride": 1, "width": 4, "heads": 1, "layers": 1}
    kept = FoveaBuffer(fovea, **shape)
    for unit, capacity, slack in [(14, 24, 0), (15, 24, 0), (16, 24, 0), (16, 30, 0), (16, 30, 3), (19, 30, 3)]:
        fresh = FoveaBuffer(fovea, **shape)
        for buffer in (kept, fresh):
            buffer.capacity, buffer.slots = capacity, RegionSlots(fovea=fovea, slack=slack)
        masks = [buffer.one_unit_mask(Units(unit, 1), CPU, torch.float32) for buffer in (kept, fresh)]
        assert torch.equal(*masks), (unit, capacity, slack)
