"""Faults of CosyVoice3 ports, from the pitfalls of the original."""

from sonant.audio import mel, stft
from sonant.families.cosyvoice3 import encoders, estimator, flow, generate, stream, vocoder
from sonant.nn.rope import rotate_half_split, rotate_interleaved
from tests.parity.faults import Fault, change, replace

STEP = "flow.step.{step}."
BLOCK = "flow.step.{step}.block.{block}"
ROTATED = (f"{BLOCK}.query_rotated", f"{BLOCK}.key_rotated")


def every_head(x, cos, sin):
    width = 2 * cos.shape[-1]
    heads = x.unflatten(-1, (-1, width))
    return rotate_interleaved(heads, cos[:, None], sin[:, None]).flatten(-2)


FAULTS = (
    Fault("rotation on every head", replace(estimator, "rotate_first_head", every_head), ROTATED),
    Fault(
        "rotation of halves instead of adjacent pairs",
        replace(estimator, "rotate_interleaved", rotate_half_split),
        ROTATED,
    ),
    Fault(
        "shift before scale in the last norm",
        change(
            estimator.Estimator,
            "forward",
            "scale, shift = self.norm_out(embedded)",
            "shift, scale = self.norm_out(embedded)",
        ),
        (f"{STEP}norm_out",),
    ),
    Fault(
        "exact GELU for the one by tanh",
        change(
            estimator.FeedForward,
            "forward",
            "return self.ff(x)",
            "return self.ff[2](F.gelu(self.ff[0][0](x)))",
        ),
        (f"{BLOCK}.feed_forward",),
    ),
    Fault(
        "epsilon 1e-5 for 1e-6 in the modulated norms",
        replace(estimator, "NORM_EPS", 1e-5),
        # Barely above the budget of a run of its own, so the first norm is not the first to be named.
        (f"{BLOCK}.feed_norm", f"{BLOCK}.norm", f"{STEP}norm_out"),
    ),
    Fault(
        "linear for the cosine schedule",
        replace(flow, "cosine_times", flow.linear_times),
        (f"{STEP}x", f"{STEP}t", "flow.mel"),
    ),
    Fault(
        "unconditional item first in the guidance",
        change(
            flow.Flow, "solve", "guided(both[:1], both[1:], guidance)", "guided(both[1:], both[:1], guidance)"
        ),
        (f"{STEP}x", "flow.mel"),
    ),
    Fault(
        "guidance without the factor on the conditional item",
        change(flow.Flow, "solve", "guided(both[:1], both[1:], guidance)", "both[:1] - guidance * both[1:]"),
        (f"{STEP}x", "flow.mel"),
    ),
    Fault("time not times 1000", replace(estimator, "TIME_SCALE", 1.0), (f"{STEP}time.sinus",)),
    Fault(
        "cosines before sines in the time embedding",
        change(
            estimator.TimeEmbedding, "forward", "(angle.sin(), angle.cos())", "(angle.cos(), angle.sin())"
        ),
        (f"{STEP}time.sinus",),
    ),
    Fault(
        "mu before the prompt mel in the joined input",
        change(estimator.InputEmbedding, "forward", "(x, cond, mu, repeated)", "(x, mu, cond, repeated)"),
        (f"{STEP}input.projection",),
    ),
    Fault(
        "centred position convolutions",
        change(
            estimator.PositionConvolution,
            "forward",
            "layer[0](x)[0]",
            "F.conv1d(F.pad(x, (15, 15)), layer[0].weight, layer[0].bias, groups=layer[0].groups)",
        ),
        (f"{STEP}input.position",),
    ),
    Fault(
        "mel filters divided by their width in bins, not in Hz",
        change(
            mel, "mel_filters", "2.0 / (edges[2:] - edges[:-2])", "2.0 / (edges[2:] - edges[:-2]) * 12.49"
        ),
        ("voice.logmel", "voice.mel"),
    ),
    Fault(
        "prompt mel offset by 2.5, as with a logarithm of other units",
        change(flow.Flow, "inputs", ".to(mu).T", ".to(mu).T + 2.5"),
        (f"{STEP}cond",),
    ),
    Fault(
        "speaker vector not normalised",
        change(
            flow.Flow, "inputs", "F.normalize(speaker.to(weight)[None], dim=1)", "speaker.to(weight)[None]"
        ),
        ("flow.spks",),
    ),
    Fault(
        "slope 0.1 in the look-ahead block",
        change(flow.LookaheadBlock, "forward", "self.conv1(ahead)))", "self.conv1(ahead)), 0.1)"),
        ("flow.lookahead",),
    ),
    Fault(
        "minimum length masks the real end",
        change(
            generate,
            "choose",
            "mask_before_minimum(scores, config.speech_tokens)",
            "mask_before_minimum(scores, config.speech_tokens + 1)",
        ),
        ("lm.scores",),
    ),
    Fault(
        "candidates and history ignored: plain sampling",
        change(
            generate,
            "choose",
            "    return repetition_aware(",
            "    return int(scores.argmin())\n    return repetition_aware(",
        ),
        ("lm.token",),
    ),
    Fault(
        "filter banks with their mean left in",
        change(encoders.Encoders, "speaker", "features - features.mean(dim=0, keepdim=True)", "features"),
        ("voice.fbank",),
    ),
    Fault(
        "noise of the source centred around zero",
        change(vocoder.HarmonicSource, "forward", "* noise.to(f0)", "* (noise.to(f0) - 0.5)"),
        ("vocoder.harmonics",),
    ),
    Fault(
        "slope 0.1 before the vocoder's last convolution",
        change(
            vocoder.Vocoder,
            "decode",
            "self.conv_post(F.leaky_relu(x))",
            "self.conv_post(F.leaky_relu(x, 0.1))",
        ),
        ("vocoder.conv_post",),
    ),
    Fault(
        "symmetric window in the vocoder's transforms",
        replace(
            vocoder,
            "hann_window",
            lambda n, like: stft.torch.hann_window(n, periodic=False, dtype=like.dtype),
        ),
        ("vocoder.source_stft", "vocoder.waveform"),
    ),
    Fault(
        "pitch network in float32, its look ahead one frame short",
        change(vocoder.PitchPredictor, "forward", "(0, self.lookahead)", "(1, self.lookahead - 1)"),
        ("vocoder.f0.layer.{layer}",),
    ),
    Fault(
        "flow starts from fresh noise",
        change(
            stream.SpeechDecoder, "_mel", 'noise = tap("flow.noise", ', "noise = torch.flip(dims=(0,), input="
        ),
        (f"{STEP}x", "flow.mel"),
    ),
)
