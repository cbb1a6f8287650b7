"""Stages of Qwen3-TTS. Source of the networks' structure: `sonant.families.qwen3_tts`.

The codec works on [B, T, C]; an original that keeps [B, C, T] is transposed when it is recorded.
"""

from __future__ import annotations

from sonant.parity.stages.table import Stage, StageTable, decoder_stages

_VOICE = (
    Stage(name="input.audio", shape="[S]", what="the clip to clone", part="voice", kind="input"),
    Stage(
        name="speaker.mel",
        shape="[B, T, M]",
        what="log-mel of the clip at 24 kHz",
        part="voice",
        inputs=("input.audio",),
    ),
    Stage(
        name="speaker.block.{block}",
        shape="[B, C, T]",
        what="block of the speaker encoder",
        part="voice",
        inputs=("speaker.block.{block-1}",),
        first=("speaker.mel",),
    ),
    Stage(
        name="speaker.mfa",
        shape="[B, C, T]",
        what="all blocks but the first, joined",
        part="voice",
        inputs=("speaker.block.{block}",),
    ),
    Stage(
        name="speaker.statistics",
        shape="[B, 2 C, 1]",
        what="weighted mean and deviation over time",
        part="voice",
        inputs=("speaker.mfa",),
    ),
    Stage(
        name="speaker.vector",
        shape="[B, D]",
        what="the speaker vector",
        part="voice",
        inputs=("speaker.statistics",),
    ),
    Stage(
        name="codec_encoder.seanet.out",
        shape="[B, C, T]",
        what="strided convolutions, 25 Hz",
        part="voice",
        inputs=("input.audio",),
    ),
    Stage(
        name="codec_encoder.layer.{layer}.out",
        shape="[B, T, C]",
        what="layer of the codec encoder's transformer",
        part="voice",
        inputs=("codec_encoder.layer.{layer-1}.out",),
        first=("codec_encoder.seanet.out",),
    ),
    Stage(
        name="codec_encoder.transformer.out",
        shape="[B, C, T]",
        what="after the last layer",
        part="voice",
        inputs=("codec_encoder.layer.{layer}.out",),
    ),
    Stage(
        name="codec_encoder.downsample.out",
        shape="[B, C, T]",
        what="12.5 Hz, what the quantizers see",
        part="voice",
        inputs=("codec_encoder.transformer.out",),
    ),
    Stage(
        name="codec_encoder.tokens",
        shape="[B, T, K]",
        what="tokens of the clip",
        part="voice",
        inputs=("codec_encoder.downsample.out",),
    ),
)

_PROMPT = (
    Stage(name="prompt.text_ids", shape="[N]", what="text ids with their chat markers", part="prompt"),
    Stage(name="prompt.reference_ids", shape="[N]", what="ids of the clip's transcript", part="prompt"),
    Stage(name="prompt.instruction_ids", shape="[N]", what="ids of the instruction", part="prompt"),
    Stage(
        name="prompt.embeds",
        shape="[T, D]",
        what="what the talker is prefilled with",
        part="prompt",
        inputs=(
            "prompt.text_ids",
            "prompt.reference_ids",
            "prompt.instruction_ids",
            "speaker.vector",
            "codec_encoder.tokens",
        ),
    ),
    Stage(
        name="prompt.trailing",
        shape="[N, D]",
        what="text added to the first generated frames, one position each",
        part="prompt",
        inputs=("prompt.text_ids", "prompt.reference_ids"),
    ),
    Stage(name="prompt.filler", shape="[D]", what="the projected pad that follows", part="prompt"),
)

_DECODE = (
    *decoder_stages("talker", part="decode", source=("talker.frame", "prompt.embeds"), what="talker"),
    Stage(
        name="talker.logits",
        shape="[B, V]",
        what="over token 0, before any filter",
        part="decode",
        inputs=("talker.norm",),
    ),
    Stage(
        name="talker.scores",
        shape="[V]",
        what="after penalty, suppression, temperature, top-k and top-p",
        part="decode",
        inputs=("talker.logits", "talker.token"),
    ),
    Stage(
        name="talker.token",
        shape="[B]",
        what="token 0 of the frame, or the end",
        part="decode",
        inputs=("talker.scores", "draw.exponential"),
        kind="token",
    ),
    Stage(
        name="predictor.inputs",
        shape="[B, 2, D]",
        what="talker state and embedding of token 0",
        part="decode",
        inputs=("talker.norm", "talker.token"),
    ),
    *decoder_stages(
        "predictor", part="decode", source=("predictor.inputs", "predictor.token"), what="code predictor"
    ),
    Stage(
        name="predictor.logits",
        shape="[B, V]",
        what="over the next token of the frame",
        part="decode",
        inputs=("predictor.norm",),
    ),
    Stage(
        name="predictor.scores",
        shape="[B, V]",
        what="after temperature, top-k and top-p (absent when greedy)",
        part="decode",
        inputs=("predictor.logits",),
    ),
    Stage(
        name="predictor.token",
        shape="[B]",
        what="tokens 1, 2, ... of the frame",
        part="decode",
        inputs=("predictor.scores", "predictor.logits", "draw.exponential"),
        kind="token",
    ),
    Stage(
        name="talker.frame",
        shape="[B, 1, D]",
        what="the frame's embeddings summed, plus one position of text: next talker input",
        part="decode",
        inputs=("talker.token", "predictor.token", "prompt.trailing", "prompt.filler"),
    ),
)

_AUDIO = (
    Stage(
        name="codec.tokens",
        shape="[B, T, K]",
        what="tokens to decode, a reference's in front",
        part="audio",
        inputs=("talker.token", "predictor.token", "codec_encoder.tokens"),
    ),
    Stage(
        name="codec.quantizer.semantic",
        shape="[B, T, C]",
        what="first codebook, projected",
        part="audio",
        inputs=("codec.tokens",),
    ),
    Stage(
        name="codec.quantizer.acoustic",
        shape="[B, T, C]",
        what="other codebooks summed, projected",
        part="audio",
        inputs=("codec.tokens",),
    ),
    Stage(
        name="codec.quantizer.out",
        shape="[B, T, C]",
        what="both added",
        part="audio",
        inputs=("codec.quantizer.semantic", "codec.quantizer.acoustic"),
    ),
    Stage(
        name="codec.pre_conv.out",
        shape="[B, T, C]",
        what="causal convolution",
        part="audio",
        inputs=("codec.quantizer.out",),
    ),
    *decoder_stages(
        "codec.pre_transformer",
        part="audio",
        source=("codec.pre_conv.out",),
        width="C",
        what="codec transformer",
    ),
    Stage(
        name="codec.pre_transformer.out",
        shape="[B, T, C]",
        what="back at the latent width",
        part="audio",
        inputs=("codec.pre_transformer.norm",),
    ),
    Stage(
        name="codec.upsample.{stage}.up",
        shape="[B, T, C]",
        what="transposed convolution, twice the rate",
        part="audio",
        inputs=("codec.upsample.{stage-1}.out",),
        first=("codec.pre_transformer.out",),
    ),
    Stage(
        name="codec.upsample.{stage}.out",
        shape="[B, T, C]",
        what="ConvNeXt block",
        part="audio",
        inputs=("codec.upsample.{stage}.up",),
    ),
    Stage(
        name="codec.decoder.{block}.up",
        shape="[B, T, C]",
        what="Snake and transposed convolution",
        part="audio",
        inputs=("codec.decoder.{block-1}.out",),
    ),
    Stage(
        name="codec.decoder.{block}.unit.{unit}",
        shape="[B, T, C]",
        what="residual unit with dilation 1, 3, 9",
        part="audio",
        inputs=("codec.decoder.{block}.unit.{unit-1}",),
        first=("codec.decoder.{block}.up",),
    ),
    Stage(
        name="codec.decoder.{block}.out",
        shape="[B, T, C]",
        what="first convolution, the blocks, the last Snake",
        part="audio",
        inputs=("codec.decoder.{block}.unit.2", "codec.decoder.{block-1}.out"),
        first=("codec.upsample.{stage}.out",),
    ),
    Stage(
        name="codec.wav_unclamped",
        shape="[B, S]",
        what="last convolution",
        part="audio",
        inputs=("codec.decoder.{block}.out",),
    ),
    Stage(
        name="codec.wav",
        shape="[B, S]",
        what="clamped to -1..1",
        part="audio",
        inputs=("codec.wav_unclamped",),
    ),
    Stage(
        name="output.samples",
        shape="[S]",
        what="what is heard, without the reference",
        part="audio",
        inputs=("codec.wav",),
    ),
)

TABLE = StageTable(
    "qwen3_tts",
    (*_VOICE, *_PROMPT, *_DECODE, *_AUDIO),
    token="talker.token",
    frame="talker.frame",
    pieces="codec.tokens",
)
