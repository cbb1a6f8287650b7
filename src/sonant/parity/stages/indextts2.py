"""Stages of IndexTTS2 and IndexTTS-2.5. Source of the networks' structure: `sonant.families.indextts2`.

2.5 has no codec encoder, no conformer for the speaker and no latent pass, and a codec decoder of its own.
Stages of the velocity network occur once for each solver step, in order.
"""

from __future__ import annotations

from sonant.parity.stages.table import Stage, StageTable, maker

voice, prompt, decode, audio = (maker(part) for part in ("voice", "prompt", "decode", "audio"))


def _vocos(name: str, part: str, what: str, source: str) -> tuple[Stage, ...]:
    """The inside of one half of a semantic codec."""
    make, block = maker(part), f"{name}.block.{{block}}"
    before, start = f"{name}.block.{{block-1}}.out", f"{name}.norm"
    return (
        make(f"{name}.embed", "[B, C, T]", f"{what}: first convolution", source),
        make(start, "[B, T, C]", "first norm", f"{name}.embed"),
        make(f"{block}.dwconv", "[B, C, T]", "depthwise convolution", before, first=(start,)),
        make(f"{block}.norm", "[B, T, C]", "norm", f"{block}.dwconv"),
        make(f"{block}.pwconv1", "[B, T, D]", "linear layer", f"{block}.norm"),
        make(f"{block}.pwconv2", "[B, T, C]", "GELU, linear layer", f"{block}.pwconv1"),
        make(
            f"{block}.out",
            "[B, C, T]",
            "after gain and residual sum",
            f"{block}.pwconv2",
            before,
            first=(f"{block}.pwconv2", start),
        ),
        make(f"{name}.final_norm", "[B, T, C]", "last norm", f"{block}.out"),
    )


_REFERENCE = (
    voice("input.audio", "[S]", "the clip to clone", kind="input"),
    voice("input.emotion_audio", "[S]", "the clip whose emotion is copied", kind="input"),
    voice("reference.audio_22k", "[S]", "clip at 22.05 kHz, at most 15 s", "input.audio"),
    voice("reference.audio_16k", "[S]", "the same at 16 kHz", "reference.audio_22k"),
    voice(
        "w2v.features",
        "[T, 160]",
        "normalised filter banks, pairs of frames",
        "reference.audio_16k",
        "reference.emotion_16k",
    ),
    voice(
        "w2v.hidden.{layer}",
        "[B, T, H]",
        "hidden state of w2v-bert; 0 is the input of the first layer",
        "w2v.hidden.{layer-1}",
        first=("w2v.features",),
    ),
    voice("reference.semantic", "[B, T, H]", "hidden state 17, normalised", "w2v.hidden.{layer}"),
    *_vocos("codec.encoder", "voice", "semantic codec's encoder", "reference.semantic"),
    voice("codec.encoder", "[B, T, H]", "semantic codec's encoder", "reference.semantic"),
    voice("codec.in_project", "[B, 8, T]", "projection to the code book's width", "codec.encoder"),
    voice("codec.codes", "[B, T]", "nearest code", "codec.in_project"),
    voice("codec.out", "[B, T, H]", "code vectors, projected back", "codec.codes", "s2mel.codes"),
    voice("reference.quantised", "[B, T, H]", "quantised features", "codec.out"),
    voice("reference.mel", "[B, M, T]", "prompt mel", "reference.audio_22k"),
    voice("reference.fbank_raw", "[T, 80]", "Kaldi filter banks", "reference.audio_16k"),
    voice("reference.fbank", "[T, 80]", "mean over time removed", "reference.fbank_raw"),
    voice("campplus.head", "[B, C, T]", "two-dimensional front of the speaker network", "reference.fbank"),
    voice("campplus.tdnn", "[B, C, T]", "time-delay layer", "campplus.head"),
    voice(
        "campplus.block{block}",
        "[B, C, T]",
        "dense block 1, 2, 3",
        "campplus.transit{block-1}",
        "campplus.tdnn",
    ),
    voice("campplus.transit{block}", "[B, C, T]", "transition after a block", "campplus.block{block}"),
    voice("campplus.stats", "[B, 2 C]", "mean and unbiased deviation over time", "campplus.transit{block}"),
    voice("campplus.out", "[B, S]", "style vector", "campplus.stats"),
    voice(
        "reference.condition",
        "[B, T, C]",
        "prompt condition; in IndexTTS-2.5 of the features as they are",
        "reference.quantised",
        "reference.semantic",
    ),
    voice(
        "reference.emotion_16k",
        "[S]",
        "clip resampled straight to 16 kHz",
        "input.emotion_audio",
        "input.audio",
    ),
)


def _conditioner(name: str, what: str, *projected: str) -> tuple[Stage, ...]:
    """Conformer and perceiver called `name`; `projected` is what IndexTTS-2.5 makes the latents of."""
    layer, perceiver = f"{name}.layer.{{layer}}", f"{name}.perceiver.{{layer}}"
    return (
        voice(f"{name}.embed", "[B, T, D]", f"{what}: subsampled, scaled", "reference.semantic"),
        voice(f"{name}.positions", "[B, T, D]", "rows of the position table"),
        voice(
            f"{layer}.attention",
            "[B, T, D]",
            "attention branch of a conformer layer",
            f"{name}.layer.{{layer-1}}.out",
            f"{name}.positions",
            first=(f"{name}.embed", f"{name}.positions"),
        ),
        voice(
            f"{layer}.convolution",
            "[B, T, D]",
            "convolution branch",
            f"{layer}.attention",
            f"{name}.layer.{{layer-1}}.out",
            first=(f"{layer}.attention", f"{name}.embed"),
        ),
        voice(
            f"{layer}.out",
            "[B, T, D]",
            "after feed-forward and norm",
            f"{layer}.convolution",
            f"{layer}.attention",
        ),
        voice(f"{name}.out", "[B, T, D]", "after the last norm", f"{layer}.out"),
        voice(
            f"{perceiver}.attention",
            "[B, N, D]",
            "latents look at themselves and the clip",
            f"{name}.out",
            f"{name}.perceiver.{{layer-1}}.feed_forward",
            f"{name}.perceiver.{{layer-1}}.attention",
            first=(f"{name}.out",),
        ),
        voice(
            f"{perceiver}.feed_forward",
            "[B, N, D]",
            "gated feed-forward",
            f"{perceiver}.attention",
        ),
        voice(
            f"{name}.latents",
            "[B, N, D]",
            f"{what}: latents, normalised" + (", or one projected" if projected else ""),
            f"{perceiver}.feed_forward",
            *projected,
        ),
    )


_CONDITIONS = (
    *_conditioner("gpt.speaker", "speaker", "campplus.out"),
    *_conditioner("gpt.emotion", "emotion"),
    voice("gpt.emotion.widened", "[D]", "emotion latent at the GPT's width", "gpt.emotion.latents"),
    voice("gpt.emotion.vector", "[D]", "emotion vector of a clip", "gpt.emotion.widened"),
)

_PROMPT = (
    prompt("emotion.logits", "[B, V]", "text-to-emotion classifier, one row a token"),
    prompt(
        "emotion.vector",
        "[D]",
        "emotion of the request, blended and mixed",
        "gpt.emotion.vector",
        "campplus.out",
    ),
    prompt("text.ids", "[N]", "ids of the segment"),
    prompt(
        "gpt.prefix",
        "[T, D]",
        "latents plus emotion, two rows (speeds or zeros), text",
        "gpt.speaker.latents",
        "emotion.vector",
        "text.ids",
    ),
)


def _gpt(scope: str, part: str, source: tuple[str, ...]) -> tuple[Stage, ...]:
    make = maker(part)
    block, before = f"{scope}gpt.h.{{layer}}", f"{scope}gpt.h.{{layer-1}}.out"
    start = f"{scope}gpt.input"
    return (
        make(start, "[B, T, D]", "prefix and codes with their positions", *source),
        make(f"{block}.ln_1", "[B, T, D]", "norm before attention", before, first=(start,)),
        make(f"{block}.c_attn", "[B, T, 3 D]", "queries, keys and values", f"{block}.ln_1"),
        make(f"{block}.attn", "[B, T, D]", "attention after its output projection", f"{block}.c_attn"),
        make(
            f"{block}.ln_2",
            "[B, T, D]",
            "norm before the feed-forward",
            f"{block}.attn",
            before,
            first=(f"{block}.attn", start),
        ),
        make(f"{block}.mlp", "[B, T, D]", "feed-forward, GELU by tanh", f"{block}.ln_2"),
        make(
            f"{block}.out",
            "[B, T, D]",
            "after both residual sums",
            f"{block}.mlp",
            f"{block}.attn",
            before,
            first=(f"{block}.mlp", f"{block}.attn", start),
        ),
        make(f"{scope}gpt.ln_f", "[B, T, D]", "the transformer's own last norm", f"{block}.out"),
        make(f"{scope}gpt.final_norm", "[B, T, D]", "the second norm", f"{scope}gpt.ln_f"),
    )


_DECODE = (
    *_gpt("", "decode", ("search.token", "gpt.prefix")),
    decode("gpt.logits", "[B, V]", "raw output of the code head", "gpt.final_norm"),
    decode(
        "search.scores",
        "[B, V]",
        "after penalty, temperature, top-k and top-p; log-probabilities with beams",
        "gpt.logits",
    ),
    decode(
        "search.token",
        "[] or [1, 2 beams]",
        "the code, or the candidates of all beams",
        "search.scores",
        "draw.exponential",
        kind="token",
    ),
)

_LATENT = (
    audio("s2mel.codes", "[N]", "codes without the stop code", "search.token"),
    *_gpt("latent.", "audio", ("s2mel.codes", "gpt.speaker.latents", "emotion.vector", "text.ids")),
    audio("latent.out", "[B, N, D]", "hidden state that predicted each code", "latent.gpt.final_norm"),
    audio("s2mel.gpt_layer", "[B, N, H]", "three linear layers", "latent.out"),
    audio("s2mel.vq2emb", "[B, N, H]", "codes embedded", "codec.out"),
    *_vocos("codec.decoder", "audio", "IndexTTS-2.5's codec decoder", "codec.out"),
    audio("codec.decoder", "[B, T, H]", "its last linear layer", "codec.decoder.final_norm"),
    audio("codec.repeated", "[B, H, 2 T]", "every frame twice", "codec.decoder"),
    audio("codec.up", "[B, H, 2 T]", "convolution after it", "codec.repeated"),
    audio(
        "s2mel.features",
        "[B, N, H]",
        "their sum; in IndexTTS-2.5 the codec's features",
        "s2mel.gpt_layer",
        "s2mel.vq2emb",
        "codec.up",
    ),
    audio("s2mel.condition", "[B, T, C]", "stretched to the mel's frames", "s2mel.features"),
    audio("s2mel.noise", "[B, M, T]", "where the flow starts", kind="draw"),
    audio(
        "s2mel.step.{step}.x",
        "[B, M, T]",
        "state that enters a solver step",
        "s2mel.step.{step-1}.x",
        "s2mel.step.{step-1}.velocity",
        first=("s2mel.noise",),
    ),
)

LAYER = "dit.layer.{layer}"
_BEFORE, _START = "dit.layer.{layer-1}.out", "dit.merged"

_DIT = (
    audio("dit.t", "[B, D]", "embedded time"),
    audio("dit.condition", "[B, T, D]", "condition, projected", "s2mel.condition", "reference.condition"),
    audio(
        "dit.merged",
        "[B, T, D]",
        "noisy mel, prompt mel, condition and style, merged",
        "s2mel.step.{step}.x",
        "reference.mel",
        "dit.condition",
        "campplus.out",
    ),
    audio(f"{LAYER}.skip", "[B, T, D]", "late layers: joined with an early one", _BEFORE),
    audio(
        f"{LAYER}.attention_norm",
        "[B, T, D]",
        "adaptive norm before attention",
        _BEFORE,
        f"{LAYER}.skip",
        "dit.t",
        first=(_START, "dit.t"),
    ),
    audio(f"{LAYER}.wqkv", "[B, T, 3 D]", "queries, keys and values", f"{LAYER}.attention_norm"),
    audio(f"{LAYER}.query", "[B, H, T, head]", "queries after the rotation", f"{LAYER}.wqkv"),
    audio(f"{LAYER}.key", "[B, H, T, head]", "keys after the rotation", f"{LAYER}.wqkv"),
    audio(
        f"{LAYER}.attention",
        "[B, T, D]",
        "attention after its output projection",
        f"{LAYER}.query",
        f"{LAYER}.key",
        f"{LAYER}.wqkv",
    ),
    audio(
        f"{LAYER}.ffn_norm",
        "[B, T, D]",
        "adaptive norm before the feed-forward",
        f"{LAYER}.attention",
        _BEFORE,
        "dit.t",
        first=(f"{LAYER}.attention", _START, "dit.t"),
    ),
    audio(f"{LAYER}.feed_forward", "[B, T, D]", "SwiGLU", f"{LAYER}.ffn_norm"),
    audio(
        f"{LAYER}.out",
        "[B, T, D]",
        "after both residual sums",
        f"{LAYER}.feed_forward",
        f"{LAYER}.attention",
        _BEFORE,
        first=(f"{LAYER}.feed_forward", f"{LAYER}.attention", _START),
    ),
    audio("dit.transformer", "[B, T, D]", "last adaptive norm", f"{LAYER}.out", "dit.t"),
    audio("dit.skip", "[B, T, D]", "joined with the noisy mel", "dit.transformer", "s2mel.step.{step}.x"),
    audio("dit.conv1", "[B, T, C]", "linear layer into the WaveNet", "dit.skip"),
    audio("dit.t2", "[B, C]", "embedded time of the WaveNet"),
    audio("dit.wavenet.condition", "[B, 2 C L, 1]", "time, for all layers", "dit.t2"),
    audio(
        "dit.wavenet.{layer}.in",
        "[B, 2 C, T]",
        "dilated convolution",
        "dit.wavenet.{layer-1}.res_skip",
        "dit.conv1",
        first=("dit.conv1",),
    ),
    audio(
        "dit.wavenet.{layer}.res_skip",
        "[B, 2 C, T]",
        "gate, then residual and skip",
        "dit.wavenet.{layer}.in",
        "dit.wavenet.condition",
    ),
    audio("dit.wavenet", "[B, C, T]", "sum of all skips", "dit.wavenet.{layer}.res_skip"),
    audio("dit.residual", "[B, T, C]", "projected past the WaveNet", "dit.skip"),
    audio("dit.final", "[B, T, C]", "modulated last layer", "dit.wavenet", "dit.residual", "dit.t"),
    audio("dit.out", "[B, M, T]", "last convolution", "dit.final"),
    audio("s2mel.step.{step}.velocity", "[B, M, T]", "with and without conditions", "dit.out"),
    audio(
        "s2mel.mel", "[B, M, T]", "after the last step", "s2mel.step.{step}.velocity", "s2mel.step.{step}.x"
    ),
)


def _activation(name: str, source: str, what: str) -> tuple[Stage, ...]:
    return (
        audio(f"{name}.in", "[B, C, T]", what, source),
        audio(f"{name}.up", "[B, C, 2 T]", "twice the rate", f"{name}.in"),
        audio(f"{name}.snake", "[B, C, 2 T]", "Snake", f"{name}.up"),
        audio(f"{name}.out", "[B, C, T]", "back to the rate", f"{name}.snake"),
    )


BLOCK = "bigvgan.stage.{stage}.block.{block}"

_VOCODER = (
    audio("bigvgan.conv_pre", "[B, C, T]", "first convolution", "s2mel.mel"),
    audio(
        "bigvgan.up.{stage}",
        "[B, C, T]",
        "transposed convolution",
        "bigvgan.stage.{stage-1}",
        first=("bigvgan.conv_pre",),
    ),
    Stage(
        name=f"{BLOCK}.activation.{{index}}.in",
        shape="[B, C, T]",
        what="input of an activation in a residual block",
        part="audio",
        inputs=(
            f"{BLOCK}.activation.{{index-1}}.out",
            f"{BLOCK}.activation.{{index-1}}.in",
            "bigvgan.up.{stage}",
        ),
        first=("bigvgan.up.{stage}",),
    ),
    *_activation(f"{BLOCK}.activation.{{index}}", "bigvgan.up.{stage}", "input of an activation")[1:],
    audio(
        BLOCK,
        "[B, C, T]",
        "residual block",
        f"{BLOCK}.activation.5.out",
        f"{BLOCK}.activation.4.in",
        "bigvgan.up.{stage}",
    ),
    audio("bigvgan.stage.{stage}", "[B, C, T]", "mean of three blocks", f"{BLOCK}"),
    *_activation("bigvgan.activation_post", "bigvgan.stage.{stage}", "input of the last activation"),
    audio("bigvgan.conv_post", "[B, 1, S]", "last convolution", "bigvgan.activation_post.out"),
    audio("bigvgan.out", "[B, 1, S]", "clamped to -1..1", "bigvgan.conv_post"),
    audio("output.samples", "[S]", "what is heard", "bigvgan.out"),
)

TABLE = StageTable(
    "indextts2",
    (*_REFERENCE, *_CONDITIONS, *_PROMPT, *_DECODE, *_LATENT, *_DIT, *_VOCODER),
    token="search.token",
)
