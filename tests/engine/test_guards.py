"""Speech that gets stuck is spoken again or stopped, and told; speech that does not is left alone."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.engine.guards import LONGEST_CYCLE, LOOP, QUIET_SECONDS, REPEATS, TRIES, LoopWatch, quiet_after
from sonant.engine.loop import MOST_UNDECODED
from sonant.errors import RequestError
from sonant.families.builtin.model import BuiltinModel
from sonant.request.speech import SpeechRequest
from tests.engine.faulty import FaultyToy
from tests.engine.test_faults import ENDLESS, read

RATE = 12.5


def watched(tokens):
    """What a watch finds in tokens that come one by one, and after how many."""
    watch = LoopWatch(RATE)
    for count, token in enumerate(tokens, 1):
        found = watch.push(torch.tensor([[token, count]]))
        if found is not None:
            return found, count
    return None, len(tokens)


@pytest.mark.parametrize("before", [0, 1, 50, 300])
@pytest.mark.parametrize("period", [1, 2, 4, 5, 12, 40, 62])
def test_a_cycle_is_found_as_soon_as_it_has_gone_on_for_long_enough(before, period):
    rng = np.random.default_rng(period)
    speech = rng.integers(0, 2000, before).tolist()
    cycle = (5000 + rng.permutation(period)).tolist()
    found, count = watched(speech + cycle * 200)
    assert found.kind == ("repeated_code" if period < 0.4 * RATE else "repeated_phrase")
    assert found.good == before + period
    assert count == before + max(REPEATS * period, round(LOOP * RATE))


@pytest.mark.parametrize("pattern", ["random", "three times", "held", "long cycle", "nearly"])
def test_what_is_no_loop_is_left_alone(pattern):
    rng = np.random.default_rng(1)
    phrase = rng.integers(0, 2000, 25).tolist()
    held = [7] * (round(LOOP * RATE) - 1)
    tokens = {
        "random": rng.integers(0, 40, 2000).tolist(),
        "three times": (phrase * 3 + [1, 2, 3]) * 30,
        "held": [*held, 8] * 20,
        "long cycle": rng.permutation(round(LONGEST_CYCLE * RATE) + 1).tolist() * 10,
        "nearly": [token for n in range(60) for token in [*phrase, 5000 + n]],
    }[pattern]
    assert watched(tokens)[0] is None


def test_pieces_of_any_size_and_other_codebooks_change_nothing():
    tokens = torch.tensor([[3, n] for n in range(200)])
    whole, pieces = LoopWatch(RATE), LoopWatch(RATE)
    found = whole.push(tokens)
    assert found == next(filter(None, (pieces.push(part) for part in tokens.split(7))))
    assert found.good == 1


def test_quiet_is_counted_from_the_last_loud_sample():
    quiet, loud = np.full(100, 5e-4, np.float32), np.full(100, 0.1, np.float32)
    assert quiet_after(quiet, 100, 2.0) == 3.0
    assert quiet_after(np.concatenate([loud, quiet]), 100, 9.0) == 1.0
    assert quiet_after(loud, 100, 9.0) == 0.0
    assert quiet_after(loud[:0], 100, 9.0) == 9.0


class StuckToy(FaultyToy):
    """Says one token for ever where the text has "loop", unless it is begun with another seed than at first
    and the text has "once"; "mute" decodes to silence."""

    def __init__(self, **given):
        super().__init__(end_bias=ENDLESS, **given)
        self.spec = replace(self.spec, frame_rate=10.0)
        self.seeds = []

    def prepare(self, request):
        return [replace(prompt, ceiling=150, positions=400) for prompt in super().prepare(request)]

    def start(self, prompt, slots):
        self.seeds.append(prompt.seed)
        return super().start(prompt, slots)

    def step(self, utterances):
        steps = super().step(utterances)
        for index, utterance in enumerate(utterances):
            text, is_again = utterance.prompt.text, utterance.prompt.seed != 1
            if "loop" in text and not ("once" in text and is_again) and utterance.steps > 10:
                steps[index] = replace(steps[index], tokens=torch.tensor([[5]]))
        return steps

    def decoder(self, prompt, *, streaming):
        made = super().decoder(prompt, streaming=streaming)
        if "mute" in prompt.text:
            push = made.push
            made.push = lambda tokens: push(tokens).repeat_interleave(200) * 1e-6
        return made


def speak(text, *, stuck_speech="again", streaming=False, pipelined=False, model=None):
    model = model or StuckToy()
    with Engine(model, pipelined=pipelined, chunk_limit=10_000) as engine:
        request = SpeechRequest(text, seed=1, stuck_speech=stuck_speech)
        stream = engine.submit(request, streaming=streaming)
        samples = read(stream)
        assert engine.load == (0, 0)
    return model, stream, samples


def kinds(stream):
    return [guard.kind for guard in stream.guards]


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_stuck_segment_is_spoken_again_with_a_derived_seed(pipelined):
    model, stream, samples = speak("loop once. and on", pipelined=pipelined)
    assert kinds(stream) == ["repeated_code", "length_ceiling", "length_ceiling"]
    assert "spoken again with another seed (1 of 2)" in stream.guards[0].message
    assert len(set(model.seeds)) == 3
    _, same, again = speak("loop once. and on")
    assert np.array_equal(samples, again)
    assert kinds(same) == kinds(stream)


@pytest.mark.parametrize("pipelined", [False, True])
def test_one_that_stays_stuck_is_stopped_and_trimmed_after_its_tries(pipelined):
    model, stream, samples = speak("loop", pipelined=pipelined)
    assert kinds(stream) == ["repeated_code"] * (TRIES + 1)
    assert "its end may be missing" in stream.guards[-1].message
    assert len(model.seeds) == len(set(model.seeds)) == TRIES + 1
    assert len(samples) == 12 * 40  # what came before the loop, and its first time round


@pytest.mark.parametrize("how", [{"streaming": True}, {"stuck_speech": "stop"}])
def test_where_somebody_has_heard_it_or_so_wishes_it_is_stopped_at_once(how):
    model, stream, samples = speak("loop", **how)
    assert kinds(stream) == ["repeated_code"]
    assert len(model.seeds) == 1
    assert 12 * 40 <= len(samples) < (12 + round(LOOP * 10)) * 40


def test_off_leaves_everything_alone():
    _, stream, samples = speak("loop", stuck_speech="off")
    assert kinds(stream) == ["length_ceiling"]
    assert len(samples) == 150 * 40


@pytest.mark.parametrize("streaming", [False, True])
def test_silence_is_told_and_stopped_where_it_is_decoded_meanwhile(streaming):
    _, stream, samples = speak("mute", streaming=streaming)
    assert kinds(stream)[-1] == "near_silence"
    assert kinds(speak("mute", stuck_speech="off", streaming=streaming)[1]) == ["length_ceiling"]
    if streaming:
        assert len(samples) < 150 * 8000
        assert len(samples) >= QUIET_SECONDS * 8000


class LaggingToy(StuckToy):
    """Decodes nothing before its last step was taken."""

    def __init__(self):
        super().__init__()
        self.is_over = threading.Event()

    def prepare(self, request):
        return [replace(prompt, ceiling=MOST_UNDECODED) for prompt in super().prepare(request)]

    def step(self, utterances):
        steps = super().step(utterances)
        if any(step.is_final for step in steps):
            self.is_over.set()
        return steps

    def decoder(self, prompt, *, streaming):
        made = super().decoder(prompt, streaming=streaming)
        push = made.push

        def pushed(tokens):
            assert self.is_over.wait(60)
            return push(tokens)

        made.push = pushed
        return made


@pytest.mark.parametrize("streaming", [False, True])
def test_silence_is_judged_at_the_same_places_however_late_it_is_decoded(streaming):
    timely = LaggingToy()
    timely.is_over.set()
    _, stream, samples = speak("mute", streaming=streaming, model=timely)
    _, late, same = speak("mute", streaming=streaming, model=LaggingToy(), pipelined=True)
    assert [kind for kind in kinds(stream) if kind != "length_ceiling"] == ["near_silence"]
    assert [kind for kind in kinds(late) if kind != "length_ceiling"] == ["near_silence"]
    assert len(samples) == len(same) == (15 if streaming else MOST_UNDECODED) * 8000
    assert np.array_equal(samples, same)


def test_nothing_of_a_segment_is_delivered_whole_before_its_guards_had_their_say():
    _, _, samples = speak("loop once [pause:1s] and on", pipelined=False)
    with Engine(StuckToy(), pipelined=True) as engine:
        request = SpeechRequest("loop once [pause:1s] and on", seed=1)
        chunks = list(engine.submit(request, streaming=False))
    assert [chunk.text.strip() for chunk in chunks] == ["loop once", "and on"]
    assert len(chunks[0].samples) == 150 * 40 + 8000
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), samples)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_decoder_that_fails_in_a_try_that_is_dropped_ends_nothing(pipelined):
    class Broken(StuckToy):
        def decoder(self, prompt, *, streaming):
            made = super().decoder(prompt, streaming=streaming)
            if prompt.seed == 1:
                made.push = lambda tokens: 1 / 0
            return made

    _, stream, samples = speak("loop once", model=Broken(), pipelined=pipelined)
    assert kinds(stream) == ["repeated_code", "length_ceiling"]
    assert len(samples) == 150 * 40


def test_a_long_pause_that_was_asked_for_is_no_silence():
    _, stream, samples = speak("[pause:20s]one. two [pause:20s] three", streaming=True)
    assert kinds(stream) == ["length_ceiling"] * 3
    assert len(samples) == 40 * 8000 + 3 * 150 * 40


def test_a_wrong_wish_is_refused():
    with pytest.raises(RequestError, match="again"):
        SpeechRequest("x", stuck_speech="never")


def test_the_built_in_voice_raises_no_alarm_whatever_it_repeats():
    texts = ("no no no no no no no no no no no no no no no no no no", "Ha. " * 12, "Well, hello there.")
    with Engine(BuiltinModel(), slots=2) as engine:
        for text in texts:
            assert kinds(engine.synthesize(SpeechRequest(text, seed=1))) == []
