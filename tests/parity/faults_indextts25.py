"""Faults of IndexTTS-2.5 ports: what differs from IndexTTS2, and how it is easily missed."""

from sonant.families.indextts2 import decoder, gpt, preparing, semantic_codec, speaker_rows
from tests.parity.faults import Fault, change, loaded, replace


def codec_eps(model):
    for layer in model.parts.codec.decoder.modules():
        if hasattr(layer, "eps"):
            layer.eps = 1e-5


FAULTS = (
    Fault(
        "no row for the language",
        change(gpt.IndexGpt, "_text", "rows + self.languages.weight[language]", "rows"),
        ("gpt.prefix",),
    ),
    Fault(
        "the token ! kept in the text",
        change(
            gpt.IndexGpt,
            "spoken_ids",
            "value not in (c.start_text_token, c.stop_text_token)",
            "value != c.stop_text_token",
        ),
        ("gpt.prefix",),
    ),
    Fault(
        "the appended stop kept besides the stop row",
        change(
            gpt.IndexGpt,
            "spoken_ids",
            "value not in (c.start_text_token, c.stop_text_token)",
            "value != c.start_text_token",
        ),
        ("gpt.prefix",),
    ),
    Fault(
        "the two rows of zeros left out",
        change(speaker_rows.ProjectedSpeaker, "followers", "torch.zeros(FOLLOWERS,", "torch.zeros(0,"),
        ("gpt.prefix",),
    ),
    Fault(
        "speaker projected without its bias",
        change(
            speaker_rows.ProjectedSpeaker,
            "forward",
            "self.projection(style)",
            "(style @ self.projection.weight.T)",
        ),
        ("gpt.speaker.latents",),
    ),
    Fault(
        "consecutive code positions in the decode loop",
        replace(gpt, "cached_code_position", lambda index: index),
        ("gpt.input",),
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
        "GELU by tanh in the codec's decoder",
        change(semantic_codec.ConvNeXt, "forward", "F.gelu(y)", 'F.gelu(y, approximate="tanh")'),
        ("codec.decoder.block.{block}.pwconv2",),
    ),
    Fault(
        "learned gain of the codec's blocks left out",
        change(semantic_codec.ConvNeXt, "forward", "(self.gamma * y)", "y"),
        ("codec.decoder.block.{block}.out",),
    ),
    Fault(
        "linear for nearest upsampling in the codec",
        change(semantic_codec.HalfRateCodec, "decode", 'mode="nearest"', 'mode="linear"'),
        ("codec.repeated",),
    ),
    Fault(
        "GELU behind the codec's last convolution",
        change(semantic_codec.HalfRateCodec, "decode", "self.up(repeated)", "F.gelu(self.up(repeated))"),
        ("codec.up",),
    ),
    Fault(
        "length factor ignored",
        change(
            decoder.IndexDecoder,
            "finish",
            "self.s2mel.condition(features, i.duration)",
            "self.s2mel.condition(features)",
        ),
        ("s2mel.condition",),
    ),
    Fault(
        "pace taken for the length factor",
        change(preparing.Preparing, "_prompt", "1.0 / request.speed", "request.speed"),
        ("s2mel.condition",),
    ),
    Fault(
        "row of another language",
        change(
            gpt.IndexGpt, "_text", "self.languages.weight[language]", "self.languages.weight[language - 1]"
        ),
        ("gpt.prefix",),
        words="text",
    ),
    Fault(
        "language added to the spoken ids only",
        change(
            gpt.IndexGpt,
            "_text",
            "return rows + self.languages.weight[language]",
            "rows[1:-1] += self.languages.weight[language]\n    return rows",
        ),
        ("gpt.prefix",),
    ),
    Fault(
        "speaker vector normalised before it is projected",
        change(
            speaker_rows.ProjectedSpeaker,
            "forward",
            "self.projection(style)",
            "self.projection(style / style.norm())",
        ),
        ("gpt.speaker.latents",),
    ),
    Fault(
        "codec's norms with another epsilon",
        loaded(codec_eps),
        ("codec.decoder.norm", "codec.decoder.block.{block}.norm", "codec.decoder.final_norm"),
    ),
    Fault(
        "frames repeated as a whole, not one by one",
        change(
            semantic_codec.HalfRateCodec,
            "decode",
            'F.interpolate(x, scale_factor=2.0, mode="nearest")',
            "torch.cat((x, x), dim=-1)",
        ),
        ("codec.repeated",),
    ),
)
