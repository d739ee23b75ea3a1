import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foveate.model.clock import Units
from foveate.model.rotary import TABLE_POSITIONS, Rotary, rotate


def test_rotation_is_multiplication_by_a_complex_number() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 2, 8, dtype=torch.float64)
    cos, sin = Rotary(8, 100.0)(Units(3, 5), x)
    speed = 100.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turn = torch.polar(torch.ones(5, 4, dtype=torch.float64), torch.arange(3, 8)[:, None] * speed)
    turned = torch.complex(x[..., :4], x[..., 4:]) * turn[:, None]
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat((turned.real, turned.imag), -1))


def test_table_and_computation_agree_across_the_end_of_the_table() -> None:
    x = torch.zeros(1, 1, 2, 8)
    far = Rotary(8, 1e4)(Units(TABLE_POSITIONS - 2, 4), x)
    near = Rotary(8, 1e4)(Units(TABLE_POSITIONS - 2, 2), x)
    for long, short in zip(far, near, strict=True):
        torch.testing.assert_close(long[:2], short, atol=2e-7, rtol=0)


def test_ragged_rows_have_their_own_positions() -> None:
    rotary, x = Rotary(8, 1e4), torch.zeros(2, 3, 2, 8)
    cos, _ = rotary(Units(np.array([4, 600]), np.array([3, 1])), x)
    assert torch.equal(cos[0], rotary(Units(4, 3), x)[0])
    assert torch.equal(cos[1, :1], rotary(Units(600, 1), x)[0])


def test_a_million_tokens_on_the_angle_is_still_exact() -> None:
    x = torch.zeros(1, 1, 1, 4)
    cos, _ = Rotary(4, 1e4)(Units(1_000_003, 1), x)
    assert abs(cos[0, 0, 0].item() - np.cos(1_000_003.0)) < 1e-6


def test_half_positions_stand_between_two() -> None:
    cos, sin = Rotary(4, 1e4).at_halves(torch.tensor([3, 2_000_001]), torch.float32)
    for i, position in enumerate((1.5, 1_000_000.5)):
        assert abs(cos[i, 0, 0].item() - np.cos(position)) < 1e-6
        assert abs(sin[i, 0, 2].item() - np.sin(position)) < 1e-6


def test_no_angle_is_computed_in_fp64_on_the_device() -> None:
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            seen.append(out.dtype if isinstance(out, torch.Tensor) else None)
            return out

    rotary, x = Rotary(8, 1e4), torch.zeros(1, 1, 2, 8)
    rotary(Units(TABLE_POSITIONS, 4), x)  # tables are made once, on the CPU
    seen: list[torch.dtype | None] = []
    with Seen():
        rotary(Units(TABLE_POSITIONS, 4), x)
    assert seen
    assert torch.float64 not in seen


def test_positions_beyond_what_is_kept_at_hand(monkeypatch) -> None:
    monkeypatch.setattr("foveate.model.rotary.LONGEST", 1 << 10)
    cos, sin = Rotary(4, 1e4).at(torch.tensor([1_000_003]), torch.float64, 1_000_004)
    assert abs(cos[0, 0, 0].item() - np.cos(1_000_003.0)) < 1e-9
    assert abs(sin[0, 0, 2].item() - np.sin(1_000_003.0)) < 1e-9
