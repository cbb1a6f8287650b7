"""Stages of CosyVoice3. Source of the networks' structure: `sonant.families.cosyvoice3`.

A streamed answer puts `call.{n}.` before the names of the flow and the vocoder, once for each chunk.
"""

from __future__ import annotations

from sonant.parity.stages.table import StageTable, decoder_stages, maker

voice, prompt, decode, audio = (maker(part) for part in ("voice", "prompt", "decode", "audio"))

STEP = "flow.step.{step}."
BLOCK = "flow.step.{step}.block.{block}"

_VOICE = (
    voice("input.audio", "[S]", "the clip to clone", kind="input"),
    voice("voice.fbank", "[T, 80]", "Kaldi filter banks at 16 kHz, mean removed", "input.audio"),
    voice("voice.speaker", "[D]", "speaker vector (ONNX)", "voice.fbank"),
    voice("voice.logmel", "[128, T]", "Whisper log-mel at 16 kHz", "input.audio"),
    voice("voice.tokens", "[T]", "speech tokens (ONNX)", "voice.logmel"),
    voice("voice.mel", "[T, M]", "prompt mel at 24 kHz", "input.audio"),
)

_PROMPT = (
    prompt("lm.text_ids", "[N]", "text ids, prompt and target"),
    prompt("lm.prompt_tokens", "[N]", "speech tokens of the prompt, after the trim", "voice.tokens"),
    prompt(
        "lm.input",
        "[B, T, D]",
        "start, text, task and prompt speech, embedded",
        "lm.text_ids",
        "lm.prompt_tokens",
    ),
)

_DECODE = (
    *decoder_stages("lm", part="decode", source=("lm.input", "lm.token"), what="language model"),
    decode("lm.logits", "[B, V]", "raw output of the head", "lm.norm"),
    decode("lm.scores", "[V]", "log-probabilities after the minimum-length mask", "lm.logits"),
    decode("lm.token", "[]", "the chosen id", "lm.scores", "draw.exponential", kind="token"),
)

_FLOW = (
    audio("flow.tokens", "[T]", "prompt and spoken tokens, silences filtered", "voice.tokens", "lm.token"),
    audio("flow.spks", "[B, M]", "normalised speaker, projected", "voice.speaker"),
    audio("flow.token_embedding", "[B, T, M]", "tokens embedded", "flow.tokens"),
    audio(
        "flow.lookahead.conv1", "[B, C, T]", "first look-ahead convolution, linear", "flow.token_embedding"
    ),
    audio(
        "flow.lookahead",
        "[B, T, M]",
        "look-ahead block with its residual",
        "flow.lookahead.conv1",
        "flow.token_embedding",
    ),
    audio("flow.noise", "[M, T]", "where the flow starts", kind="draw"),
    audio(
        STEP + "x",
        "[B, M, T]",
        "state that enters a solver step, for both items",
        "flow.step.{step-1}.x",
        "flow.step.{step-1}.v",
        "flow.step.{step-1}.t",
        first=("flow.noise",),
    ),
    audio(STEP + "mu", "[B, M, T]", "tokens at the frame rate, then zeros", "flow.lookahead"),
    audio(STEP + "cond", "[B, M, T]", "prompt mel in its frames, then zeros", "voice.mel"),
    audio(STEP + "spks", "[B, M]", "speaker, then zeros", "flow.spks"),
    audio(STEP + "t", "[B]", "time of the step"),
    audio(STEP + "time.sinus", "[B, 256]", "sines and cosines of 1000 t", STEP + "t"),
    audio(STEP + "time.embedding", "[B, D]", "embedded time", STEP + "time.sinus"),
    audio(
        STEP + "input.projection",
        "[B, T, D]",
        "x, cond, mu, speaker, joined and projected",
        STEP + "x",
        STEP + "cond",
        STEP + "mu",
        STEP + "spks",
    ),
    audio(STEP + "input.position", "[B, T, D]", "two causal convolutions", STEP + "input.projection"),
    audio(STEP + "input", "[B, T, D]", "their sum", STEP + "input.position", STEP + "input.projection"),
    audio(
        BLOCK + ".norm",
        "[B, T, D]",
        "modulated norm before attention",
        "flow.step.{step}.block.{block-1}",
        STEP + "time.embedding",
        first=(STEP + "input", STEP + "time.embedding"),
    ),
    audio(BLOCK + ".query", "[B, T, H D]", "queries", BLOCK + ".norm"),
    audio(BLOCK + ".key", "[B, T, H D]", "keys", BLOCK + ".norm"),
    audio(BLOCK + ".query_rotated", "[B, T, H D]", "after the rotation (head 0 only)", BLOCK + ".query"),
    audio(BLOCK + ".key_rotated", "[B, T, H D]", "after the rotation (head 0 only)", BLOCK + ".key"),
    audio(
        BLOCK + ".attention",
        "[B, T, D]",
        "attention after its output projection",
        BLOCK + ".norm",
        BLOCK + ".query_rotated",
        BLOCK + ".key_rotated",
    ),
    audio(
        BLOCK + ".feed_norm",
        "[B, T, D]",
        "modulated norm before the feed-forward",
        BLOCK + ".attention",
        STEP + "time.embedding",
        "flow.step.{step}.block.{block-1}",
        first=(BLOCK + ".attention", STEP + "time.embedding", STEP + "input"),
    ),
    audio(BLOCK + ".feed_forward", "[B, T, D]", "Linear, GELU by tanh, Linear", BLOCK + ".feed_norm"),
    audio(
        BLOCK,
        "[B, T, D]",
        "output of a block",
        BLOCK + ".feed_forward",
        BLOCK + ".attention",
        STEP + "time.embedding",
        "flow.step.{step}.block.{block-1}",
        first=(BLOCK + ".feed_forward", BLOCK + ".attention", STEP + "time.embedding", STEP + "input"),
    ),
    audio(STEP + "norm_out", "[B, T, D]", "last modulated norm", BLOCK, STEP + "time.embedding"),
    audio(STEP + "v", "[B, M, T]", "velocity, with and without conditions", STEP + "norm_out"),
    audio(
        "flow.mel",
        "[M, T]",
        "after the last step, without the prompt",
        "flow.step.{step}.v",
        "flow.step.{step}.x",
    ),
)

_VOCODER = (
    audio("vocoder.mel", "[M, T]", "what the vocoder gets, at the wanted pace", "flow.mel"),
    audio(
        "vocoder.f0.layer.{layer}",
        "[B, C, T]",
        "layer of the pitch network, float64",
        "vocoder.f0.layer.{layer-1}",
        first=("vocoder.mel",),
    ),
    audio("vocoder.f0", "[B, T]", "pitch in Hz", "vocoder.f0.layer.{layer}"),
    audio("vocoder.noise", "[S, K]", "uniform noise of the source", kind="draw"),
    audio("vocoder.sines", "[T, K]", "sine of each harmonic, one value a frame", "vocoder.f0"),
    audio("vocoder.voiced", "[T, 1]", "1 where there is pitch", "vocoder.f0"),
    audio(
        "vocoder.harmonics",
        "[S, K]",
        "harmonics and noise",
        "vocoder.sines",
        "vocoder.voiced",
        "vocoder.noise",
    ),
    audio("vocoder.source", "[S, 1]", "excitation", "vocoder.harmonics"),
    audio("vocoder.source_stft", "[B, 18, T]", "its transform, real and imaginary rows", "vocoder.source"),
    audio("vocoder.conv_pre", "[B, C, T]", "first convolution, 4 frames ahead", "vocoder.mel"),
    audio(
        "vocoder.stage.{stage}.up",
        "[B, C, T]",
        "leaky ReLU, repetition, causal convolution",
        "vocoder.stage.{stage-1}.out",
        first=("vocoder.conv_pre",),
    ),
    audio(
        "vocoder.stage.{stage}.source_down",
        "[B, C, T]",
        "source branch at this rate",
        "vocoder.source_stft",
    ),
    audio(
        "vocoder.stage.{stage}.source",
        "[B, C, T]",
        "its residual block",
        "vocoder.stage.{stage}.source_down",
    ),
    audio(
        "vocoder.stage.{stage}.out",
        "[B, C, T]",
        "mean of the residual blocks",
        "vocoder.stage.{stage}.up",
        "vocoder.stage.{stage}.source",
    ),
    audio("vocoder.conv_post", "[B, 18, T]", "last convolution", "vocoder.stage.{stage}.out"),
    audio("vocoder.magnitude", "[B, 9, T]", "exponential, not yet clipped", "vocoder.conv_post"),
    audio("vocoder.phase", "[B, 9, T]", "sine of the rest", "vocoder.conv_post"),
    audio(
        "vocoder.waveform",
        "[S]",
        "inverse transform, clamped",
        "vocoder.magnitude",
        "vocoder.phase",
    ),
    audio("output.samples", "[S]", "what is heard", "vocoder.waveform"),
)

TABLE = StageTable("cosyvoice3", (*_VOICE, *_PROMPT, *_DECODE, *_FLOW, *_VOCODER), token="lm.token")
