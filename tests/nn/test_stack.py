import pytest
import torch

from sonant.nn.cache import KVCache, WindowRows
from sonant.nn.quantize import ResidualCodebooks
from sonant.nn.snake import SnakeBeta
from sonant.nn.transformer import Decoder, DecoderConfig


def stack(**switches):
    torch.manual_seed(0)
    config = DecoderConfig(
        width=12,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=6,
        intermediate=20,
        rope_theta=1e4,
        norm_eps=1e-6,
        **switches,
    )
    return Decoder(config, "test").requires_grad_(False)


@pytest.mark.parametrize("switches", [{}, {"qk_norm": True}, {"qkv_bias": True, "layer_scale": True}])
def test_prefill_then_steps_equal_one_pass(switches):
    decoder = stack(**switches)
    x = torch.randn(1, 9, 12)
    whole = decoder(x)
    cache = KVCache(layers=2, slots=3, heads=2, head_dim=6, capacity=9)
    parts = [decoder(x[:, :5], rows=cache.rows([1], 5))]
    parts += [decoder(x[:, t : t + 1], rows=cache.rows([1], 1)) for t in range(5, 9)]
    assert cache.lengths == [0, 9, 0]
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-5


def test_rows_of_different_age_equal_rows_alone():
    decoder = stack(qk_norm=True)
    x = torch.randn(3, 8, 12)
    cache = KVCache(layers=2, slots=3, heads=2, head_dim=6, capacity=8)
    for slot, age in enumerate((2, 6, 4)):
        decoder(x[slot : slot + 1, :age], rows=cache.rows([slot], age))
    last = torch.stack([x[slot, age] for slot, age in enumerate((2, 6, 4))])[:, None]
    together = decoder(last, rows=cache.rows([0, 1, 2], 1))
    for slot, age in enumerate((2, 6, 4)):
        alone = decoder(x[slot : slot + 1, : age + 1])[:, -1]
        assert (together[slot] - alone[0]).abs().max() < 1e-5


@pytest.mark.parametrize("split", [(1,) * 12, (5, 7), (2, 9, 1), (12,)])
def test_a_window_in_pieces_equals_one_pass(split):
    decoder = stack(window=4)
    x = torch.randn(1, 12, 12)
    whole = decoder(x)
    past, at, parts = None, 0, []
    for size in split:
        rows = WindowRows(past, start=at, new=size, window=4, like=x)
        parts.append(decoder(x[:, at : at + size], rows=rows))
        past, at = rows.new, at + size
    assert all(keys.shape[2] <= 3 for keys, _ in past)
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-5


def test_a_window_forgets_what_is_older():
    decoder = stack(window=3)
    x = torch.randn(1, 12, 12)
    changed = x.clone()
    changed[:, 0] += 1.0
    # Two layers of a window of 3 reach 4 positions back.
    assert torch.equal(decoder(x)[:, 5:], decoder(changed)[:, 5:])
    assert not torch.equal(decoder(x)[:, 4], decoder(changed)[:, 4])


def test_a_codebook_divides_by_usage_but_never_by_less_than_its_floor():
    codebooks = ResidualCodebooks(1, 3, 2)
    layer = codebooks.layers[0]
    layer.sums.data = torch.tensor([[2.0, 4.0], [1e-5, 0.0], [3.0, 3.0]])
    layer.usage.data = torch.tensor([2.0, 0.0, 3.0])
    assert torch.allclose(layer.vectors(), torch.tensor([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0]]))


def test_residual_tokens_describe_what_is_left():
    torch.manual_seed(0)
    codebooks = ResidualCodebooks(3, 8, 4).requires_grad_(False)
    for index, layer in enumerate(codebooks.layers):
        layer.sums.data = torch.randn(8, 4) * 0.5**index
    x = torch.randn(2, 5, 4)
    tokens = codebooks.encode(x)
    errors = []
    for count in (1, 2, 3):
        sum_of = sum(
            layer.vectors()[tokens[..., k]] for k, layer in list(enumerate(codebooks.layers))[:count]
        )
        errors.append((x - sum_of).norm())
    assert errors[0] > errors[1] > errors[2]
    assert torch.equal(codebooks.encode(x, 2), tokens[..., :2])
    assert torch.allclose(codebooks.decode(tokens), sum_of)


def test_snake_equals_its_formula_in_both_layouts():
    snake = SnakeBeta(3).requires_grad_(False)
    snake.alpha.data, snake.beta.data = torch.tensor([0.1, -0.5, 1.0]), torch.tensor([0.3, 0.0, -1.0])
    x = torch.randn(2, 3, 7)
    a, b = snake.alpha.exp()[:, None], snake.beta.exp()[:, None]
    expected = x + torch.sin(a * x) ** 2 / (b + 1e-9)
    assert torch.allclose(snake(x), expected, atol=1e-6)
    snake.channels_last = True
    assert torch.allclose(snake(x.transpose(1, 2)).transpose(1, 2), expected, atol=1e-6)
