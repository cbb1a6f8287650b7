"""Faults by kind: one wrong relation between the right and the wrong tensor, at stages of every family."""

import torch

from tests.parity.faults import Fault, at


def whole(function):
    """A turn that does the same each time."""
    return lambda x, times: function(x)


def late(axis):
    """Everything one place later along an axis."""
    return whole(lambda x: torch.cat((x.narrow(axis, 0, 1), x.narrow(axis, 0, x.shape[axis] - 1)), dim=axis))


def only(axis, index, function):
    """A turn of one slice."""

    def turn(x):
        x = x.clone()
        x.select(axis, index).copy_(function(x.select(axis, index)))
        return x

    return whole(turn)


def since(axis, start, function):
    """A turn of everything from an index on."""

    def turn(x):
        x = x.clone()
        part = x.narrow(axis, start, x.shape[axis] - start)
        part.copy_(function(part.clone()))
        return x

    return whole(turn)


def swapped(axis, first, second):
    def turn(x):
        order = list(range(x.shape[axis]))
        order[first], order[second] = order[second], order[first]
        return x.index_select(axis, torch.tensor(order))

    return whole(turn)


def halves(x):
    return torch.cat((x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), dim=-1)


def pairs(x):
    """Halves read as adjacent pairs."""
    half = x.shape[-1] // 2
    return x.reshape(*x.shape[:-1], 2, half).transpose(-1, -2).reshape(x.shape)


def noise(x):
    made = torch.randn(x.shape, generator=torch.Generator().manual_seed(99))
    return (made * x.float().std() + x.float().mean()).to(x.dtype)


def turned(x):
    """[.., T, C] written as [.., C, T] with the shape left as it was."""
    return x.transpose(-1, -2).reshape(x.shape)


def not_a_number(stage):
    return Fault(
        f"not-a-number in one channel of {stage}",
        at(stage, only(-1, 0, lambda x: x * float("nan"))),
        (stage,),
        "not-a-number",
        "not-a-number",
    )


def kinds(width, time, heads, mel, softened):
    """The list for one family: stages [B, T, C], with time, with heads, a mel, and a softened one."""
    name, axis = time
    head_name, head_axis, head_word = heads
    return (
        Fault(f"transposed at {width}", at(width, whole(turned)), (width,), "transposed", "transposed"),
        Fault(
            f"an offset at {width}",
            at(width, whole(lambda x: x + 0.05)),
            (width,),
            "offset",
            "constant offset of 0.05",
        ),
        Fault(
            f"2 % more at {width}",
            at(width, whole(lambda x: x * 1.02)),
            (width,),
            "factor",
            "constant factor of 1.02",
        ),
        Fault(f"one frame late at {name}", at(name, late(axis)), (name,), "shift in time", "late"),
        Fault(
            f"one channel wrong at {width}",
            at(width, only(-1, 3, lambda x: x * 0)),
            (width,),
            "one row",
            " 3 of ",
        ),
        Fault(
            f"head 1 wrong at {head_name}",
            at(head_name, only(head_axis, 1, lambda x: x * 1.5)),
            (head_name,),
            "one head",
            f"only {head_word} 1",
        ),
        Fault(
            f"heads 0 and 1 exchanged at {head_name}",
            at(head_name, swapped(head_axis, 0, 1)),
            (head_name,),
            "heads permuted",
            "permuted",
        ),
        Fault(
            f"halves exchanged at {head_name}",
            at(head_name, whole(halves)),
            (head_name,),
            "RoPE halves",
            "halves of",
        ),
        Fault(
            f"halves for pairs at {head_name}",
            at(head_name, whole(pairs)),
            (head_name,),
            "RoPE halves",
            "adjacent pairs",
        ),
        Fault(f"the sign turned at {mel}", at(mel, whole(lambda x: -x)), (mel,), "sign", "sign is turned"),
        Fault(
            f"wrong from frame 4 on at {name}",
            at(name, since(axis, 4, lambda x: x + 0.3)),
            (name,),
            "from a position on",
            " 4 on",
        ),
        Fault(
            f"the last frame wrong at {name}",
            at(name, only(axis, -1, lambda x: x + 0.3)),
            (name,),
            "last frame",
            "only the last",
        ),
        Fault(
            f"rounded to bfloat16 at {softened}",
            at(softened, whole(lambda x: x.to(torch.bfloat16).to(x.dtype))),
            (softened,),
            "rounding",
            "rounded to bfloat16",
        ),
        Fault(
            f"rounded to float16 at {softened}",
            at(softened, whole(lambda x: x.to(torch.float16).to(x.dtype))),
            (softened,),
            "rounding",
            "rounded to float16",
        ),
        Fault(f"other noise at {mel}", at(mel, whole(noise)), (mel,), "noise", "noise of another seed"),
        Fault(
            f"clipped at {mel}", at(mel, whole(lambda x: x.clamp(-0.01, 0.01))), (mel,), "clipped", "clipped"
        ),
        Fault(
            f"zeros at {softened}", at(softened, whole(torch.zeros_like)), (softened,), "zeros", "all zeros"
        ),
        Fault(
            f"a millionth more at {softened}",
            at(softened, whole(lambda x: x * (1 + 1.2e-6))),
            (softened,),
            "below the budget",
            is_suspicious=True,
        ),
    )


KINDS = {
    "qwen3_tts": (
        *kinds(
            "speaker.mel",
            ("codec.quantizer.out", 1),
            ("codec.pre_transformer.layer.{layer}.query", 1, "head"),
            "codec.decoder.{block}.out",
            "codec.pre_conv.out",
        ),
        not_a_number("codec.pre_conv.out"),  # before the tokens every family refuses to speak from one
    ),
    "cosyvoice3": kinds(
        "flow.lookahead",
        ("flow.token_embedding", 1),
        ("flow.step.{step}.input", 2, "channel"),
        "flow.mel",
        "vocoder.conv_pre",
    ),
    "indextts2": kinds(
        "gpt.speaker.out",
        ("s2mel.features", 1),
        ("dit.layer.{layer}.query", 1, "head"),
        "s2mel.mel",
        "bigvgan.conv_pre",
    ),
}
