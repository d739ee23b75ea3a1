import copy

import numpy as np
import torch

from foveate.model.clock import Span
from foveate.model.rotary import TABLE_POSITIONS, Rotary, rotate


def test_rotation_is_multiplication_by_a_complex_number() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 2, 8, dtype=torch.float64)
    cos, sin = Rotary(8, 100.0)(Span(3, 5), x)
    speed = 100.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turn = torch.polar(torch.ones(5, 4, dtype=torch.float64), torch.arange(3, 8)[:, None] * speed)
    turned = torch.complex(x[..., :4], x[..., 4:]) * turn[:, None]
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat((turned.real, turned.imag), -1))


def test_table_and_computation_agree_across_the_end_of_the_table() -> None:
    x = torch.zeros(1, 1, 2, 8)
    far = Rotary(8, 1e4)(Span(TABLE_POSITIONS - 2, 4), x)
    near = Rotary(8, 1e4)(Span(TABLE_POSITIONS - 2, 2), x)
    for long, short in zip(far, near, strict=True):
        assert torch.equal(long[:2], short)


def test_ragged_rows_have_their_own_positions() -> None:
    rotary, x = Rotary(8, 1e4), torch.zeros(2, 3, 2, 8)
    cos, _ = rotary(Span(np.array([4, 600]), np.array([3, 1])), x)
    assert torch.equal(cos[0], rotary(Span(4, 3), x)[0])
    assert torch.equal(cos[1, :1], rotary(Span(600, 1), x)[0])


def test_a_million_tokens_on_the_angle_is_still_exact() -> None:
    x = torch.zeros(1, 1, 1, 4)
    cos, _ = Rotary(4, 1e4)(Span(1_000_003, 1), x)
    assert abs(cos[0, 0, 0].item() - np.cos(1_000_003.0)) < 1e-6


def test_copies_do_not_carry_the_table() -> None:
    rotary = Rotary(8, 1e4)
    rotary(Span(0, 4), torch.zeros(1))
    assert not copy.deepcopy(rotary)._tables
