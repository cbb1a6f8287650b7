"""Faults of IndexTTS2 ports, from the pitfalls of the original."""

import torch.nn.functional as F

from sonant.audio import fbank
from sonant.families.indextts2 import (
    campplus,
    conditioning,
    dit,
    gpt,
    reference,
    s2mel,
    search,
    semantic_codec,
    speaker_rows,
    vocoder,
)
from sonant.nn import snake
from sonant.nn.flow import cosine_times
from sonant.nn.rope import rotate_half_split
from sonant.nn.sampling import keep_top_k, keep_top_p
from tests.parity.faults import Fault, change, end_at, loaded, replace, straight_lines

LAYER = "dit.layer.{layer}"
ACTIVATIONS = ("bigvgan.stage.{stage}.block.{block}.activation.{index}", "bigvgan.activation_post")


def both(leaf):
    """A stage of the decoding pass and of the latent pass."""
    return f"gpt.{leaf}", f"latent.gpt.{leaf}"


def drop_last_layer(model):
    del model.parts.reference.w2v_bert.layers[-1]


FAULTS = (
    Fault(
        "final norm before the code head left out",
        change(
            gpt.IndexGpt,
            "_blocks",
            'self.final_norm(tap("gpt.ln_f", self.ln_f(x)))',
            'tap("gpt.ln_f", self.ln_f(x))',
        ),
        both("final_norm"),
    ),
    Fault(
        "consecutive code positions in the decode loop",
        replace(gpt, "cached_code_position", lambda index: index),
        ("gpt.input",),
    ),
    Fault(
        "exact GELU for the one by tanh in the GPT",
        change(gpt.Mlp, "forward", ', approximate="tanh"', ""),
        both("h.{layer}.mlp"),
    ),
    Fault(
        "speed rows in the other order",
        change(speaker_rows.ResampledSpeaker, "followers", ".flip(0)", "[:]"),
        ("gpt.prefix", "latent.gpt.input"),
    ),
    Fault(
        "latent pass with the decode loop's positions",
        change(
            gpt.IndexGpt,
            "latents",
            "self.code_positions.weight[: len(fed)]",
            "self.code_positions.weight[[cached_code_position(i) for i in range(len(fed))]]",
        ),
        ("latent.gpt.input",),
    ),
    Fault(
        "latents one row late",
        change(gpt.IndexGpt, "latents", "-len(fed) : -2", "1 - len(fed) : -1"),
        ("latent.out",),
    ),
    Fault(
        "repetition penalty without the prefix's history",
        change(
            search, "_first_history", "[HISTORY_FILL] * prefix_length + [settings.start]", "[settings.start]"
        ),
        ("search.scores",),
    ),
    Fault(
        "temperature before the penalty's sign rule: penalty on log-probabilities",
        change(
            search.SingleSearch, "advance", "logits.float().cpu()", "logits.float().cpu().log_softmax(-1)"
        ),
        ("search.scores",),
    ),
    Fault(
        "rotation of halves in the velocity network",
        replace(dit, "rotate_interleaved", rotate_half_split),
        (f"{LAYER}.query", f"{LAYER}.key"),
    ),
    Fault(
        "adaptive norm with 1 + scale",
        change(dit.AdaptiveNorm, "forward", "scale * self", "(1 + scale) * self"),
        (f"{LAYER}.attention_norm", f"{LAYER}.ffn_norm", "dit.transformer"),
    ),
    Fault(
        "skips taken back first in, first out",
        change(dit.Transformer, "forward", "remembered.pop()", "remembered.pop(0) * 0.5"),
        (f"{LAYER}.skip",),
    ),
    Fault(
        "scale before shift in the final layer",
        change(dit.FinalLayer, "forward", "shift, scale =", "scale, shift ="),
        ("dit.final",),
    ),
    Fault(
        "final layer modulated by the WaveNet's time",
        change(
            dit.Dit,
            "forward",
            "self.final_layer(tail, embedded)",
            "self.final_layer(tail, self.t_embedder2(time))",
        ),
        ("dit.final",),
    ),
    Fault(
        "sines before cosines in the time embedding",
        change(dit.TimeEmbedding, "forward", "(angles.cos(), angles.sin())", "(angles.sin(), angles.cos())"),
        ("dit.t", "dit.t2"),
    ),
    Fault(
        "zeros instead of reflection in the WaveNet",
        replace(dit, "reflect_pad", lambda x, left, right: F.pad(x, (left, right))),
        ("dit.wavenet.{layer}.in",),
    ),
    Fault(
        "null item first in the guidance",
        change(
            s2mel.S2Mel,
            "generate",
            "guided(moved[:1], moved[1:], guidance)",
            "guided(moved[1:], moved[:1], guidance)",
        ),
        ("s2mel.step.{step}.x", "s2mel.mel"),
    ),
    Fault(
        "prompt region integrated",
        change(
            s2mel.S2Mel,
            "generate",
            "F.pad(moved[..., known - unwanted :], (known, 0))",
            "moved",
        ),
        ("s2mel.step.{step}.x", "s2mel.mel"),
    ),
    Fault(
        "linear for nearest interpolation in the length regulator",
        change(s2mel.LengthRegulator, "forward", 'mode="nearest"', 'mode="linear"'),
        ("reference.condition", "s2mel.condition"),
    ),
    Fault(
        "normalised code vectors looked up",
        change(
            semantic_codec.Quantiser,
            "embed",
            "self.codebook(codes)",
            "F.normalize(self.codebook(codes), dim=-1)",
        ),
        ("codec.out",),
    ),
    Fault(
        "gate halves swapped in the perceiver",
        change(conditioning.GatedFeedForward, "forward", "F.gelu(second) * first", "F.gelu(first) * second"),
        ("gpt.speaker.perceiver.{layer}.feed_forward", "gpt.emotion.perceiver.{layer}.feed_forward"),
    ),
    Fault(
        "relative shift in the conformer's attention",
        change(
            conditioning.PositionedAttention,
            "forward",
            "weights = ((content + placed)",
            "placed = placed.roll(1, -1)\n    weights = ((content + placed)",
        ),
        ("gpt.speaker.layer.{layer}.attention", "gpt.emotion.layer.{layer}.attention"),
    ),
    Fault(
        "biased deviation in the speaker network",
        change(campplus.CampPlus, "forward", "correction=1", "correction=0"),
        ("campplus.stats",),
    ),
    Fault(
        "Snake before the vocoder's transposed convolutions",
        change(vocoder.BigVgan, "forward", "up(x))", "up(x + x.sin() ** 2))"),
        ("bigvgan.up.{stage}",),
    ),
    Fault(
        "Snake's sine not squared",
        change(snake.SnakeBeta, "forward", ".square_()", ""),
        tuple(f"{name}.snake" for name in ACTIVATIONS),
    ),
    Fault(
        "zeros instead of repeated ends in the oversampling",
        change(
            vocoder,
            "windows",
            "rows[:, :1].expand(-1, left), rows[:, -1:].expand(-1, right)",
            "rows.new_zeros(count, left), rows.new_zeros(count, right)",
        ),
        tuple(f"{name}.{part}" for name in ACTIVATIONS for part in ("up", "out")),
    ),
    Fault(
        "sum instead of the mean of the residual blocks",
        change(vocoder.BigVgan, "forward", "total / count", "total"),
        ("bigvgan.stage.{stage}",),
    ),
    Fault(
        "epsilon of one norm",
        loaded(lambda m: setattr(m.parts.gpt.h[1].ln_2, "eps", 1.02e-5)),
        both("h.{layer}.ln_2"),
        is_suspicious=True,
    ),
    Fault(
        "another nucleus",
        change(search, "filter_scores", "s.top_p, at_least", "0.5, at_least"),
        ("search.scores",),
        words="a filter removes",
    ),
    Fault(
        "temperature multiplied",
        change(search, "filter_scores", "scores / s.temperature", "scores * s.temperature"),
        ("search.scores",),
    ),
    Fault(
        "ends two codes early",
        change(search.SingleSearch, "advance", ">= self.settings.limit", ">= self.settings.limit - 2"),
        ("search.token",),
        ends=True,
    ),
    Fault(
        "text without its positions",
        change(gpt.IndexGpt, "_text", " + self.text_positions.weight[: len(marked)]", ""),
        ("gpt.prefix", "latent.gpt.input"),
        words=": text",
    ),
    Fault(
        "emotion not added",
        change(
            gpt.IndexGpt,
            "conditions",
            "latents.to(self.dtype) + emotion.to(self.dtype)",
            "latents.to(self.dtype)",
        ),
        ("gpt.prefix", "latent.gpt.input"),
        words="speaker latent plus emotion",
    ),
    Fault(
        "no causal mask in the latent pass",
        change(gpt.Attention, "forward", "is_causal=True", "is_causal=False"),
        ("latent.gpt.h.{layer}.attn",),
    ),
    Fault(
        "keys and values exchanged",
        change(gpt.Attention, "forward", "query, key, value = (", "query, value, key = ("),
        both("h.{layer}.attn"),
    ),
    Fault("time not times 1000", replace(dit, "TIME_SCALE", 1.0), ("dit.t", "dit.t2")),
    Fault(
        "gate and filter of the WaveNet exchanged",
        change(dit.WaveNet, "forward", "first.tanh() * second.sigmoid()", "second.tanh() * first.sigmoid()"),
        ("dit.wavenet.{layer}.res_skip",),
    ),
    Fault(
        "noise left in the prompt region",
        change(s2mel.S2Mel, "generate", "x[..., :known] = 0", "x[..., :known] *= 1"),
        ("s2mel.step.{step}.x", "s2mel.mel"),
    ),
    Fault(
        "filter banks with their mean left in",
        change(reference.ReferenceEncoder, "speaker", "bank - bank.mean(dim=0, keepdim=True)", "bank"),
        ("reference.fbank",),
    ),
    Fault(
        "semantic features not divided by their deviation",
        change(
            reference.ReferenceEncoder,
            "semantic",
            "(hidden - self.mean) / self.deviation",
            "hidden - self.mean",
        ),
        ("reference.semantic",),
    ),
    Fault(
        "code vectors not added to the latents",
        change(
            s2mel.S2Mel,
            "features",
            'tap("s2mel.vq2emb", embedded) + projected',
            'tap("s2mel.vq2emb", embedded) * 0 + projected',
        ),
        ("s2mel.features",),
    ),
    Fault(
        "prompt mel up to 8 kHz only",
        change(reference, "mel_config", "high=s.highest", "high=8000.0"),
        ("reference.mel",),
    ),
    Fault(
        "cosine for the linear schedule",
        replace(s2mel, "linear_times", cosine_times),
        ("s2mel.step.{step}.x", "dit.t", "dit.t2", "s2mel.mel"),
    ),
    Fault(
        "guidance with the wrong sign",
        change(s2mel.S2Mel, "generate", "moved[1:], guidance)", "moved[1:], -guidance)"),
        ("s2mel.step.{step}.x", "s2mel.mel"),
    ),
    Fault(
        "time embedding divided by one less than its half",
        change(dit, "time_frequencies", "/ TIME_FREQUENCIES)", "/ (TIME_FREQUENCIES - 1))"),
        ("dit.t", "dit.t2"),
    ),
    Fault(
        "rotary base of another model in the velocity network",
        replace(dit, "ROPE_THETA", 1e6),
        (f"{LAYER}.query", f"{LAYER}.key"),
        words="by other angles",
    ),
    Fault(
        "gate and value of the velocity network exchanged",
        change(
            dit.FeedForward,
            "forward",
            "F.silu(self.w1(x)) * self.w3(x)",
            "F.silu(self.w3(x)) * self.w1(x)",
        ),
        (f"{LAYER}.feed_forward",),
    ),
    Fault(
        "GELU by tanh for the exact one in the perceiver",
        change(
            conditioning.GatedFeedForward, "forward", "F.gelu(second)", "F.gelu(second, approximate='tanh')"
        ),
        ("gpt.speaker.perceiver.{layer}.feed_forward", "gpt.emotion.perceiver.{layer}.feed_forward"),
    ),
    Fault(
        "WaveNet padded on one side",
        change(dit.WaveNet, "forward", "reflect_pad(x, reach - right, right)", "reflect_pad(x, reach, 0)"),
        ("dit.wavenet.{layer}.in",),
    ),
    Fault(
        "Snake parameters taken as they are, not as logarithms",
        change(
            snake.SnakeBeta,
            "terms",
            "self.alpha.exp(), 1.0 / (self.beta.exp() + 1e-9)",
            "self.alpha, 1.0 / (self.beta + 1e-9)",
        ),
        tuple(f"{name}.snake" for name in ACTIVATIONS),
    ),
    Fault(
        "mean left in the semantic features",
        change(
            reference.ReferenceEncoder,
            "semantic",
            "(hidden - self.mean) / self.deviation",
            "hidden / self.deviation",
        ),
        ("reference.semantic",),
    ),
    Fault(
        "another id taken for the end",
        end_at(
            search.SingleSearch,
            "advance",
            "code == self.settings.stop",
            "code in (self.settings.stop, {id})",
            "indextts2",
            "search.token@2",
        ),
        ("search.token",),
        ends=True,
    ),
    Fault(
        "nucleus before the best candidates",
        replace(
            search,
            "keep_top_k_and_p",
            lambda scores, k, p, at_least: keep_top_k(
                keep_top_p(scores, p, at_least=at_least), k, at_least=at_least
            ),
        ),
        ("search.scores",),
        words="a filter",
    ),
    Fault(
        "temperature behind the nucleus",
        change(
            search,
            "filter_scores",
            "keep_top_k_and_p(scores, s.top_k, s.top_p, at_least=at_least)",
            "keep_top_k_and_p(scores * s.temperature, s.top_k, s.top_p, at_least=at_least) / s.temperature",
        ),
        ("search.scores",),
        words="a filter",
    ),
    Fault(
        "repetition penalty of the last code only",
        change(search, "filter_scores", "(scores, history, ", "(scores, history[:, -1:], "),
        ("search.scores",),
    ),
    Fault(
        "clip scaled to sixteen bits before the filter banks",
        change(reference.ReferenceEncoder, "speaker", "fbank(narrow)", "fbank(narrow * 32768)"),
        ("reference.fbank_raw",),
        words="a constant offset of 20.7",
    ),
    Fault(
        "no pre-emphasis before the speaker's filter banks",
        replace(fbank, "PREEMPHASIS", 0.0),
        ("reference.fbank_raw",),
    ),
    Fault(
        "clip resampled by straight lines",
        replace(reference, "resample_sinc", straight_lines),
        ("reference.audio_16k",),
    ),
    Fault(
        "length of the mel rounded up, not cut",
        change(
            s2mel,
            "frames_of",
            "int(features * FRAMES_PER_FEATURE * duration)",
            "int(features * FRAMES_PER_FEATURE * duration + 1)",
        ),
        ("s2mel.condition",),
    ),
    Fault(
        "another nearest neighbour in the length regulator",
        change(s2mel.LengthRegulator, "forward", 'mode="nearest"', 'mode="nearest-exact"'),
        ("reference.condition", "s2mel.condition"),
    ),
    Fault(
        "unconditional item with the style",
        change(
            s2mel.S2Mel,
            "generate",
            "torch.cat((tensor, torch.zeros_like(tensor)))",
            "torch.cat((tensor, tensor if tensor.ndim == 2 else torch.zeros_like(tensor)))",
        ),
        ("dit.merged",),
    ),
    Fault(
        "features of the layer before",
        loaded(drop_last_layer),
        ("w2v.hidden.{layer}",),
    ),
    Fault(
        "text without its start mark",
        change(
            gpt.IndexGpt,
            "_text",
            "[c.start_text_token, *ids, c.stop_text_token]",
            "[*ids, c.stop_text_token]",
        ),
        ("gpt.prefix", "latent.gpt.input"),
    ),
    Fault(
        "code head without its bias",
        loaded(lambda m: m.parts.gpt.code_head.bias.data.zero_()),
        ("gpt.logits",),
    ),
    Fault(
        "first code's position used twice",
        replace(gpt, "cached_code_position", lambda index: max(0, index - 1)),
        ("gpt.input",),
    ),
    Fault(
        "one factor for both parameters of Snake",
        change(snake.SnakeBeta, "terms", "self.beta.exp()", "self.alpha.exp()"),
        tuple(f"{name}.snake" for name in ACTIVATIONS),
    ),
)
