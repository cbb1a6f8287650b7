"""The GPU in name notices what a GPU would not do."""

import pytest
import torch

from sonant.catalogue import registry
from sonant.errors import RequestError
from sonant.nn.replay import Replay
from tests.gpu_with_values import DEVICE, gpu_with_values


def test_tensors_of_two_devices_do_not_meet():
    with gpu_with_values():
        there, here = torch.arange(3, device=DEVICE), torch.arange(3)
        assert (there + 1).tolist() == [1, 2, 3]
        assert (there + torch.tensor(2)).tolist() == [2, 3, 4]  # a lone number may be anywhere
        with pytest.raises(RuntimeError, match="one device"):
            there + here
        with pytest.raises(RuntimeError, match="one device"):
            torch.cat((there, here))
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there.cpu() + here).tolist() == [0, 2, 4]
        there[1:] = here[:2]
        assert there.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x[0] > 1),
        lambda x: x[x > 1],
        lambda x: x.cpu(),
        lambda x: torch.tensor([1.0], device=DEVICE),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x.nonzero(),
    ],
)
def test_a_recording_neither_looks_nor_copies_between_devices(look, caplog):
    with gpu_with_values():
        result, x = torch.zeros(1, device=DEVICE), torch.ones(3, device=DEVICE)
        for work, is_fine in ((lambda: x.add_(0), True), (lambda: look(x), False)):
            replay = Replay(DEVICE)
            replay.record("it", work, result)
            assert replay.records is is_fine
            assert len(replay) is int(is_fine)
    assert "inside a recording" in caplog.text


def test_float32_is_float32_in_convolutions_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RequestError, match="cuda:1"):
        registry.load_model("builtin", device="cuda:1")
    assert torch.backends.cudnn.allow_tf32
    registry.load_model("builtin", device="cuda")
    assert not torch.backends.cudnn.allow_tf32
