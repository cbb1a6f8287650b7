"""What the runners of the originals print, held to stand-ins of the originals."""

import sys

import pytest

from sonant.bench.compare import run_rival
from sonant.bench.worker import Workload

DOCUMENTED = {"model", "precision", "batch", "threads", "load_s", "ttfa_ms", "rtf", "ms_per_frame", "peak_mb"}

COSYVOICE = """
import torch
from types import SimpleNamespace as Space

class CosyVoice3:
    sample_rate = 24000

    def __init__(self, folder):
        print("noise on the way")
        split = lambda text: (torch.zeros(1, len(text.split())), None)
        self.frontend = Space(spk2info={"somebody": {}}, _extract_text_token=split)
        inner = Space(forward_one_step=lambda cache=None: 1)

        def inference(text, max_token_text_ratio=20):
            cache = None
            for _ in range(int(text.shape[1] * max_token_text_ratio)):
                cache = inner.forward_one_step(cache=cache)
                yield 1

        self.model = Space(
            llm=Space(inference=inference, llm=inner),
            llm_job=lambda text: list(self.model.llm.inference(text)),
            flow=Space(inference=lambda tokens: tokens[: sum(range(10**6))]),
            hift=Space(inference=lambda tokens: torch.zeros(1, 960 * len(tokens))),
        )

    def inference_zero_shot(self, text, prompt, clip, zero_shot_spk_id, stream, text_frontend):
        assert zero_shot_spk_id == "somebody" and not text_frontend
        tokens = self.model.llm_job(self.frontend._extract_text_token(text)[0])
        yield {"tts_speech": self.model.hift.inference(self.model.flow.inference(tokens))}
"""

INDEXTTS = """
import inspect, os
from types import SimpleNamespace as Space
import numpy as np

class IndexTTS2:
    def __init__(self, cfg_path, model_dir, device, use_qwen_emo):
        print("noise on the way")
        self.gpt = Space(
            merge_emovec=lambda: 1,
            get_conditioning=lambda: 1,
            forward=lambda: 1,
            inference_model=Space(forward=lambda input_ids=None: 1),
            inference_speech=self.codes,
        )
        self.s2mel = Space(models={"cfm": Space(inference=lambda: sum(range(10**6)))})
        self.bigvgan = Space(forward=lambda count: np.zeros((int(1.72 * count) * 256, 1)))

    def codes(self, count):
        self.gpt.get_conditioning()
        assert "input_ids" in inspect.signature(self.gpt.inference_model.forward).parameters
        for index in range(count):
            self.gpt.inference_model.forward(input_ids=np.zeros((3, 9 if index == 0 else 1)))

    def infer(self, clip, text, output, max_mel_tokens):
        assert os.path.isfile(clip)
        self.gpt.merge_emovec()
        self.gpt.inference_speech(max_mel_tokens)
        self.gpt.forward()
        self.s2mel.models["cfm"].inference()
        return 22050, self.bigvgan.forward(max_mel_tokens)
"""


@pytest.fixture
def interpreter(tmp_path):
    """A python whose path holds the stand-ins."""
    for name, text in (("cosyvoice/cli/cosyvoice.py", COSYVOICE), ("indextts/infer_v2.py", INDEXTTS)):
        path = tmp_path / "originals" / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    command = tmp_path / "python"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "originals"} exec {sys.executable} "$@"\n')
    command.chmod(0o755)
    return str(command)


@pytest.mark.parametrize(
    ("rival", "stages"),
    [
        ("cosyvoice", ["prefill", "generate", "flow", "vocoder", "whole"]),
        ("indextts", ["prepare", "prefill", "generate", "latent", "flow", "vocoder", "whole"]),
    ],
)
def test_an_original_speaks_as_long_as_asked_and_every_stage_is_told(rival, stages, interpreter, tmp_path):
    workload = Workload(model="", threads=1, seconds=2.0, runs=1)
    figures = run_rival(rival, workload, tmp_path, python=interpreter, dtype="float32")
    assert figures.keys() >= DOCUMENTED
    assert list(figures["ms_per_frame"]) == stages
    assert figures["audio_s"] == pytest.approx(2.0, abs=0.03)
    parts = figures["ms_per_frame"]
    assert 0 < sum(parts[name] for name in stages[:-1]) <= parts["whole"] * 1.01
