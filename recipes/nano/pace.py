"""The front end's timing: a small convolutional network learns the teacher's durations in about a minute.

pace/front_end.safetensors and pace/front_end.json: what `sonant.text.paced_phonemes` loads.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import save_file

from recipes.nano import speech
from recipes.nano.progress import Progress
from recipes.nano.settings import LEAD_FRAMES, SLOT_MS, Settings
from sonant.text.paced_phonemes import PaceModel


def make(s: Settings) -> None:
    """Train, log the error on sentences kept apart, and write the front end's files."""
    folder = s.folder("pace")
    if (folder / "front_end.json").exists():
        return
    lines = [line for number in speech.numbers(s) for line in speech.lines(s, number)]
    apart, lines = lines[: len(lines) // 20], lines[len(lines) // 20 :]
    torch.manual_seed(s.seed)
    chance = np.random.default_rng(s.seed)
    net = PaceModel()
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    progress = Progress("pace", folder)

    def batch(chosen: list) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        longest = max(len(line[2]) for line in chosen)
        ids, ends, ms, mask = (torch.zeros(len(chosen), longest) for _ in range(4))
        for row, line in enumerate(chosen):
            n = len(line[2])
            ids[row, :n], ends[row, :n] = torch.tensor(line[2]), torch.tensor(line[3])
            ms[row, :n], mask[row, 1:n] = torch.tensor(line[4]), 1.0  # the first is the edge, a constant
        return ids.long(), ends.long(), ms, mask

    for step in range(s.pace_steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / s.pace_steps)
        ids, ends, ms, mask = batch([lines[i] for i in chance.integers(0, len(lines), 32)])
        # Sums of durations matter for the frame grid, so the error is measured in milliseconds too.
        guess = net(ids, ends)
        error = (guess - ms.clamp_min(10).log()).abs() + (guess.clamp_max(7).exp() - ms).abs() / 50
        loss = (error * mask).sum() / mask.sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        progress.bar(step / s.pace_steps)
        if (step + 1) % max(1, s.pace_steps // 10) == 0:
            with torch.no_grad():
                ids, ends, ms, mask = batch(apart)
                off = float(((net(ids, ends).exp() - ms).abs() * mask).sum() / mask.sum())
            progress.log(step=step + 1, loss=float(loss), apart_ms=off)
    save_file(net.state_dict(), folder / "front_end.safetensors")
    edge = float(np.mean([line[4][0] for line in lines]))
    numbers = {"slot_ms": SLOT_MS, "lead_frames": LEAD_FRAMES, "edge_ms": round(edge, 1)}
    (folder / "front_end.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    progress.close()
