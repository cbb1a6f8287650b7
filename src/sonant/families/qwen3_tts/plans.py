"""Which precision each matrix of talker and code predictor has, for each `--precision`."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

from torch import nn

from sonant.families.qwen3_tts.config import ModelConfig
from sonant.families.qwen3_tts.talker import Network
from sonant.nn.native_frame import NativeFrame
from sonant.nn.precision import (
    INT4,
    INT8,
    INT12,
    Precision,
    StackPlan,
    plain_linear,
    plain_stack,
    stack_plan,
)
from sonant.nn.quantized import PackedStore, quantize_decoder, quantize_linear
from sonant.nn.transformer import Decoder


@dataclass(frozen=True, kw_only=True)
class PrecisionPlan:
    """The precision of both stacks; heads have that of the stack before them.

    From group `late_from` on (group 0 is the talker's) the code predictor runs as `late`, if it is set.
    """

    talker: StackPlan
    predictor: StackPlan
    late: StackPlan | None = None
    late_from: int = 0

    @property
    def is_lossless(self) -> bool:
        """True when every weight keeps the value it has in the checkpoint."""
        return self.talker.is_lossless and self.predictor.is_lossless

    def head(self, group: int) -> Precision:
        """The precision of a group's head."""
        if group == 0:
            return self.talker.rest
        if self.late is not None and group >= self.late_from:
            return self.late.rest
        return self.predictor.rest

    def forms(self, name: str) -> tuple[Precision, ...]:
        """The precisions in which a matrix of this official name is kept: two where both stacks have it."""
        head = re.match(r"talker\.code_predictor\.lm_head\.(\d+)\.", name)
        if head:
            return (self.head(int(head[1]) + 1),)
        if "code_predictor" not in name:
            return (self.talker.named(name),)
        stacks = (self.predictor, self.late if ".model.layers." in name else None)
        return tuple(stack.named(name) for stack in stacks if stack is not None)


def plan_of(precision: str, config: ModelConfig) -> PrecisionPlan:
    """The plan of "lossless", "int8", "mixed" or "int4"."""
    if precision in ("lossless", "int4"):
        stack = stack_plan(precision, config.talker.layers)
        return PrecisionPlan(talker=stack, predictor=stack)
    talker = stack_plan("int8", config.talker.layers)
    # Of what int8 piles up in the logits of the code predictor's 5 layers the first one's attention makes
    # most (measured like the talker's). 12 bits in both cost 6 % more to read.
    predictor = StackPlan(rest=INT8, careful=INT12, attentions=1)
    if precision == "int8":
        return PrecisionPlan(talker=talker, predictor=predictor)
    # Mixed: int4 for the last ten of sixteen groups, whose tokens correct what the ones before left over.
    return PrecisionPlan(
        talker=talker,
        predictor=predictor,
        late=StackPlan(rest=INT4),
        late_from=max(2, 3 * config.talker.groups // 8),
    )


def narrowed(network: Network) -> tuple[nn.Module, ...]:
    """What a plan narrows."""
    talker, predictor = network.talker, network.predictor
    others = (predictor.decoder, predictor.lm_head, predictor.small_to_mtp_projection)
    return (talker.decoder, talker.codec_head, *others)


def quantize(network: Network, plan: PrecisionPlan, store: PackedStore | None = None) -> None:
    """Talker and code predictor with narrow weights, in C where sizes allow it; changed in place."""
    talker, predictor = network.talker, network.predictor
    talker.decoder = quantize_decoder(talker.decoder, "talker", plan.talker, store=store)
    talker.codec_head = quantize_linear(talker.codec_head, plan.head(0), name="talker.head", store=store)
    if plan.late is not None:
        # A shallow copy of the modules: the weights themselves are shared until they are narrow.
        wide = _twin(predictor.decoder)
        predictor.late = quantize_decoder(wide, "predictor", plan.late, store=store, stored="predictor.late")
        predictor.late_from = plan.late_from
    predictor.decoder = quantize_decoder(predictor.decoder, "predictor", plan.predictor, store=store)
    for index, head in enumerate(predictor.lm_head):
        name = f"predictor.head.{index}"
        predictor.lm_head[index] = quantize_linear(head, plan.head(index + 1), name=name, store=store)
    projection = predictor.small_to_mtp_projection
    if not isinstance(projection, nn.Identity):
        predictor.small_to_mtp_projection = quantize_linear(
            projection, plan.predictor.rest, name="predictor.projection", store=store
        )
    predictor.frame = NativeFrame.of(
        predictor.decoder,
        predictor.small_to_mtp_projection,
        list(predictor.lm_head),
        [table for table in predictor.codec_embedding if isinstance(table, nn.Embedding)],
        predictor.late,
        predictor.late_from - 1,
    )
    if store is not None:
        store.save()


def state_plainly(network: Network, plan: PrecisionPlan) -> None:
    """The same arithmetic in torch alone, where every stage can be seen; changed in place."""
    talker, predictor = network.talker, network.predictor
    assert isinstance(talker.decoder, Decoder)
    assert isinstance(predictor.decoder, Decoder)
    if plan.late is not None:
        predictor.late = plain_stack(_twin(predictor.decoder), plan.late)
        predictor.late_from = plan.late_from
    plain_stack(talker.decoder, plan.talker)
    plain_stack(predictor.decoder, plan.predictor)
    talker.codec_head = plain_linear(talker.codec_head, plan.head(0))
    for index, head in enumerate(predictor.lm_head):
        predictor.lm_head[index] = plain_linear(head, plan.head(index + 1))
    projection = predictor.small_to_mtp_projection
    if not isinstance(projection, nn.Identity):
        predictor.small_to_mtp_projection = plain_linear(projection, plan.predictor.rest)


def _twin(decoder: nn.Module) -> Decoder:
    """Another stack on the same weights."""
    assert isinstance(decoder, Decoder)
    return copy.deepcopy(decoder, {id(parameter): parameter for parameter in decoder.parameters()})
