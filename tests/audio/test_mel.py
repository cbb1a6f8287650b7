"""Log-mel, filter banks and resamplers against tensors recorded from the original front ends."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sonant.audio.fbank import FbankConfig, fbank
from sonant.audio.mel import WHISPER_128, MelConfig, log_mel, mel_filters
from sonant.audio.resample import resample_sinc, resample_soxr
from sonant.audio.stft import hann_window, inverse_stft, stft
from sonant.errors import ConfigError, RequestError

RECORDED = Path(__file__).parents[1] / "data" / "audio" / "frontend.safetensors"
PROMPT_24K = MelConfig(
    sample_rate=24_000, n_fft=1920, hop=480, bins=80, padding=720, energy_floor=1e-9, high=12_000
)
SPEAKER_24K = MelConfig(
    sample_rate=24_000, n_fft=1024, hop=256, bins=128, padding=384, energy_floor=1e-9, high=12_000
)
REFERENCE_22K = MelConfig(sample_rate=22_050, n_fft=1024, hop=256, bins=80, padding=384, energy_floor=1e-9)


@pytest.fixture(scope="module")
def recorded():
    return load_file(RECORDED)


def mono(pcm):
    return (pcm.float() / 32768).mean(dim=1)


def close(actual, expected, atol):
    torch.testing.assert_close(torch.as_tensor(actual), expected, atol=atol, rtol=0)


def test_windowed_sinc_equals_the_recorded_resampler(recorded):
    stereo = mono(recorded["stereo_44k.pcm"])
    for rate, name in ((16_000, "speech_16k"), (24_000, "speech_24k")):
        close(resample_sinc(stereo[None], 44_100, rate), recorded[f"stereo_44k.{name}"].reshape(1, -1), 1e-6)
    close(resample_sinc(recorded["mono_24k.audio_22k"], 22_050, 16_000), recorded["mono_24k.audio_16k"], 1e-6)


def test_soxr_equals_the_recorded_loader(recorded):
    samples = mono(recorded["mono_24k.pcm"]).numpy()
    close(resample_soxr(samples, 24_000, 22_050), recorded["mono_24k.audio_22k"][0], 1e-6)
    samples = mono(recorded["stereo_16k.pcm"]).numpy()
    close(resample_soxr(samples, 16_000, 24_000), recorded["stereo_16k.wav_24k"], 1e-6)


def test_mels_equal_the_recorded_ones(recorded):
    close(
        log_mel(recorded["stereo_44k.speech_24k"].reshape(1, -1), PROMPT_24K).transpose(1, 2),
        recorded["stereo_44k.mel24_untrimmed"],
        1e-5,
    )
    close(log_mel(recorded["stereo_16k.wav_24k"], SPEAKER_24K).T, recorded["stereo_16k.mel"], 1e-5)
    close(log_mel(recorded["mono_24k.audio_22k"], REFERENCE_22K), recorded["mono_24k.ref_mel"], 1e-5)
    speech = recorded["stereo_44k.speech_16k"].reshape(1, -1)
    close(log_mel(speech, WHISPER_128), recorded["stereo_44k.whisper_logmel"], 1e-5)


def test_kaldi_filter_bank_equals_the_recorded_one(recorded):
    # The recorded logarithms are 3e-4 from those in float64, as ours are: in quiet bins the order of sums
    # decides, which is each processor's own.
    clip, expected = recorded["mono_24k.audio_16k"][0], recorded["mono_24k.fbank_raw"]
    own_rounding = float((expected - fbank(clip.double())).abs().max())
    assert own_rounding > 1e-4
    close(fbank(clip), expected, 1e-4)
    features = fbank(recorded["stereo_44k.speech_16k"].reshape(-1))
    close(features - features.mean(0, keepdim=True), recorded["stereo_44k.fbank"], 1e-5)


def test_slaney_filters_have_unit_area_in_hz():
    filters = mel_filters(24_000, 8192, 80, 0.0, None)
    areas = filters.sum(axis=1) * (24_000 / 8192)
    np.testing.assert_allclose(areas[5:], 1.0, atol=0.02)


def test_stft_then_inverse_is_the_waveform():
    waveform = torch.randn(2, 3, 4000, generator=torch.Generator().manual_seed(0))
    window = hann_window(400, like=waveform)
    spectrum = stft(waveform, n_fft=400, hop=100, window=window, center=True)
    assert spectrum.shape == (2, 3, 201, 41)
    close(inverse_stft(spectrum, n_fft=400, hop=100, window=window), waveform, 1e-5)


def test_sinc_in_rows_equals_rows_alone():
    rows = torch.randn(3, 2, 500, generator=torch.Generator().manual_seed(1))
    together = resample_sinc(rows, 22_050, 24_000)
    close(together[1, 1], resample_sinc(rows[1, 1], 22_050, 24_000), 1e-6)
    assert together.shape[-1] == -(-500 * 24_000 // 22_050)


def test_a_tone_keeps_frequency_and_level_through_both_resamplers():
    times = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * times).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    for result in (
        resample_soxr(tone, 8000, 24_000),
        resample_sinc(torch.from_numpy(tone), 8000, 24_000).numpy(),
    ):
        assert np.abs(result[500:-500] - expected[500:-500]).max() < 5e-3


def test_sound_too_short_for_a_frame_is_refused():
    with pytest.raises(RequestError, match="too short"):
        log_mel(torch.zeros(300), PROMPT_24K)
    with pytest.raises(RequestError, match="shorter than one frame"):
        fbank(torch.zeros(FbankConfig().frame - 1))


def test_impossible_mel_settings_and_rates_are_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        MelConfig(sample_rate=16_000, n_fft=400, hop=160, bins=80, padding=0, high=9000)
    with pytest.raises(ConfigError, match="hop"):
        MelConfig(sample_rate=16_000, n_fft=400, hop=500, bins=80, padding=0)
    with pytest.raises(RequestError, match="positive"):
        resample_sinc(torch.zeros(10), 0, 16_000)
    with pytest.raises(RequestError, match="common divisor"):
        resample_sinc(torch.zeros(10), 44_101, 16_001)
