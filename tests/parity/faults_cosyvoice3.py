"""Faults of CosyVoice3 ports, from the pitfalls of the original."""

import dataclasses

from torch import nn

from sonant.audio import fbank, mel, stft
from sonant.families.cosyvoice3 import encoders, estimator, flow, generate, lm, stream, vocoder
from sonant.nn import snake, transformer
from sonant.nn.rope import rotate_half_split, rotate_interleaved
from tests.parity.faults import Fault, change, end_at, loaded, replace, straight_lines, together

STEP = "flow.step.{step}."
BLOCK = "flow.step.{step}.block.{block}"
ROTATED = (f"{BLOCK}.query_rotated", f"{BLOCK}.key_rotated")


def every_head(x, cos, sin):
    width = 2 * cos.shape[-1]
    heads = x.unflatten(-1, (-1, width))
    return rotate_interleaved(heads, cos[:, None], sin[:, None]).flatten(-2)


def without_biases(model):
    for layer in model.language.decoder.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            linear.bias.data.zero_()


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
        (f"{BLOCK}.norm", f"{BLOCK}.feed_norm", f"{STEP}norm_out"),
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
            "layer[0](x, before[index])",
            "F.conv1d(F.pad(x, (15, 15)), layer[0].weight, layer[0].bias, groups=layer[0].groups), None",
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
    Fault(
        "another nucleus",
        change(generate, "choose", "top_p=sampling.top_p", "top_p=0.2"),
        ("lm.token",),
    ),
    Fault(
        "every token counts as repeated",
        change(generate, "choose", "share=config.sampler.tau_r", "share=0.0"),
        ("lm.token",),
    ),
    Fault(
        "ends two tokens before the ceiling",
        change(generate, "advance", ">= utterance.prompt.ceiling", ">= utterance.prompt.ceiling - 2"),
        ("lm.token",),
        ends=True,
    ),
    Fault(
        "noise of the source a tenth weaker",
        change(
            stream.VocoderStream,
            "push",
            "self._noise.source(self._start, heard)",
            "self._noise.source(self._start, heard) * 0.9",
        ),
        ("vocoder.noise",),
        words="factor of 0.9",
    ),
    Fault(
        "pitch network in float32",
        together(
            change(vocoder.PitchPredictor, "forward", "mel.double()", "mel.float()"),
            loaded(lambda m: m.vocoder.f0_predictor.float()),
        ),
        ("vocoder.f0.layer.{layer}", "vocoder.f0"),
        is_suspicious=True,
    ),
    Fault(
        "magnitude without the exponential",
        change(vocoder.Vocoder, "decode", "torch.exp(x[:, :bins])", "x[:, :bins].abs()"),
        ("vocoder.magnitude",),
    ),
    Fault(
        "phase without the sine",
        change(vocoder.Vocoder, "decode", "torch.sin(x[:, bins:])", "x[:, bins:]"),
        ("vocoder.phase",),
    ),
    Fault(
        "gates of attention and feed-forward exchanged",
        change(
            estimator.Block,
            "forward",
            "gate_a, shift_m, scale_m, gate_m =",
            "gate_m, shift_m, scale_m, gate_a =",
        ),
        (f"{BLOCK}.feed_norm", BLOCK),
    ),
    Fault(
        "start and task exchanged",
        change(
            lm.LanguageModel,
            "prompt",
            "(start, self.text_embedding(text), task,",
            "(task, self.text_embedding(text), start,",
        ),
        ("lm.input",),
        words="task id",
    ),
    Fault(
        "one solver step fewer",
        change(
            flow.Flow,
            "solve",
            "schedule(steps or self.config.steps)",
            "schedule((steps or self.config.steps) - 1)",
        ),
        (f"{STEP}x", f"{STEP}t"),
    ),
    Fault(
        "harmonics numbered from 0",
        change(
            vocoder.HarmonicSource,
            "turns",
            "torch.arange(1, self.config.harmonics + 1,",
            "torch.arange(0, self.config.harmonics,",
        ),
        ("vocoder.sines",),
    ),
    Fault(
        "phase by frames, not by samples",
        change(vocoder.HarmonicSource, "forward", " * c.samples", ""),
        ("vocoder.sines",),
    ),
    Fault(
        "rotary base of another model",
        change(transformer.Decoder, "forward", "self.config.rope_theta", "1e4"),
        ("lm.layer.{layer}.query", "lm.layer.{layer}.key"),
        words="by other angles",
    ),
    Fault(
        "values of one layer negated",
        loaded(lambda m: m.language.decoder.layers[0].self_attn.v_proj.weight.data.neg_()),
        ("lm.layer.{layer}.attention",),
    ),
    Fault(
        "prompt mel up to 8 kHz only",
        replace(encoders, "PROMPT_MEL", dataclasses.replace(encoders.PROMPT_MEL, high=8000.0)),
        ("voice.mel",),
    ),
    Fault(
        "hop of the prompt mel one sample longer",
        replace(encoders, "PROMPT_MEL", dataclasses.replace(encoders.PROMPT_MEL, hop=481)),
        ("voice.mel",),
    ),
    Fault(
        "guidance with the wrong sign",
        change(flow.Flow, "solve", "both[1:], guidance)", "both[1:], -guidance)"),
        (f"{STEP}x", "flow.mel"),
    ),
    Fault(
        "time embedding divided by its half, not by one less",
        change(estimator.TimeEmbedding, "forward", "/ (half - 1)", "/ half"),
        (f"{STEP}time.sinus",),
    ),
    Fault(
        "Snake parameters taken as logarithms",
        change(
            snake.Snake,
            "terms",
            "self.alpha, 1.0 / (self.alpha + 1e-9)",
            "self.alpha.exp(), 1.0 / (self.alpha.exp() + 1e-9)",
        ),
        ("vocoder.stage.{stage}.source", "vocoder.stage.{stage}.out"),
    ),
    Fault(
        "frames of the source's transform begin at their sample, not centred",
        change(
            vocoder.Vocoder,
            "decode",
            "stft(source[:, 0], n_fft=c.n_fft, hop=c.hop, window=window, center=True)",
            "stft(F.pad(source[:, 0], (0, c.n_fft)), n_fft=c.n_fft, hop=c.hop, window=window, center=False)",
        ),
        ("vocoder.source_stft",),
    ),
    Fault(
        "inverse transform cut at its front only",
        change(
            vocoder.Vocoder,
            "decode",
            "window=window)[0]",
            "window=window)[0].roll(c.n_fft // 2)",
        ),
        ("vocoder.waveform",),
    ),
    Fault(
        "padding of the source's convolutions on the other side",
        replace(
            vocoder.Downsample,
            "forward",
            lambda self, x: nn.Conv1d.forward(self, nn.functional.pad(x, (0, self.stride[0] - 1))),
        ),
        ("vocoder.stage.{stage}.source_down",),
    ),
    Fault(
        "gate and value of the feed-forward exchanged",
        change(
            transformer.SwiGLU,
            "forward",
            "F.silu(self.gate_proj(x)) * self.up_proj(x)",
            "F.silu(self.up_proj(x)) * self.gate_proj(x)",
        ),
        ("lm.layer.{layer}.mlp",),
    ),
    Fault(
        "another id taken for the end",
        end_at(
            generate,
            "advance",
            "chosen >= config.speech_tokens",
            "chosen in (config.speech_tokens, {id})",
            "cosyvoice3",
            "lm.token@2",
        ),
        ("lm.token",),
        ends=True,
    ),
    Fault("no pre-emphasis before the filter banks", replace(fbank, "PREEMPHASIS", 0.0), ("voice.fbank",)),
    Fault("Hann for Povey's window", replace(fbank, "POVEY_POWER", 1.0), ("voice.fbank",)),
    Fault(
        "clip resampled by straight lines",
        replace(encoders, "resample_sinc", straight_lines),
        ("voice.fbank", "voice.logmel"),
    ),
    Fault(
        "last frame of the log-mel kept",
        replace(encoders, "WHISPER_128", dataclasses.replace(encoders.WHISPER_128, drop_last_frame=False)),
        ("voice.logmel",),
    ),
    Fault(
        "biases of queries, keys and values forgotten",
        loaded(without_biases),
        tuple(f"lm.layer.{{layer}}.{leaf}" for leaf in ("query", "key", "attention")),
    ),
    Fault(
        "head tied to the speech table",
        change(lm.LanguageModel, "logits", "self.head(hidden)", "hidden @ self.speech_embedding.weight.T"),
        ("lm.logits",),
    ),
    Fault(
        "candidates in the order of their ids",
        change(
            generate, "repetition_aware", "ids[pick(probabilities)]", "ids.sort().values[pick(probabilities)]"
        ),
        ("lm.token",),
    ),
    Fault(
        "frames of a token side by side with the next one's",
        change(
            flow.Flow,
            "inputs",
            "h.repeat_interleave(self.config.frames_per_token, dim=1)",
            "h.repeat(1, self.config.frames_per_token, 1)",
        ),
        (f"{STEP}mu",),
    ),
    Fault(
        "unconditional item with the speaker",
        change(
            flow.Flow,
            "solve",
            "(inputs.speaker, torch.zeros_like(inputs.speaker))",
            "(inputs.speaker, inputs.speaker)",
        ),
        (f"{STEP}spks",),
    ),
    Fault(
        "the conditions on the other item",
        change(
            flow.Flow,
            "solve",
            "(inputs.mu, torch.zeros_like(inputs.mu))",
            "(torch.zeros_like(inputs.mu), inputs.mu)",
        ),
        (f"{STEP}mu",),
    ),
    Fault(
        "guidance halved by each step",
        change(flow.Flow, "solve", "both[1:], guidance)", "both[1:], guidance * 0.5**step)"),
        (f"{STEP}x", "flow.mel"),
    ),
    Fault(
        "slope of the stages left at its default",
        change(vocoder.Vocoder, "decode", "F.leaky_relu(x, c.lrelu_slope)", "F.leaky_relu(x)"),
        ("vocoder.stage.{stage}.up",),
    ),
    Fault(
        "sum instead of the mean of the residual blocks",
        change(vocoder.Vocoder, "decode", " / kernels)", ")"),
        ("vocoder.stage.{stage}.out",),
        words="a constant factor of",
    ),
    Fault(
        "the added column at the other end",
        change(vocoder.Vocoder, "decode", "F.pad(x, (1, 0), mode", "F.pad(x, (0, 1), mode"),
        ("vocoder.stage.{stage}.out",),
    ),
    Fault(
        "every frame voiced",
        change(vocoder.HarmonicSource, "forward", "f0 > c.nsf_voiced_threshold", "f0 > -1"),
        ("vocoder.voiced",),
    ),
)
