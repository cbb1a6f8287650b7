"""A frame as one piece of work gives the tokens of the steps made one by one, without a look at a value."""

import copy
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from sonant.errors import NotFiniteError
from sonant.families.qwen3_tts import load
from sonant.families.qwen3_tts.frame_steps import FrameShape, FrameSteps, Stacks
from sonant.families.qwen3_tts.talker import Network
from sonant.nn.cache import KVCache
from sonant.nn.replay import Replay
from sonant.nn.tap import tapped
from sonant.request.speech import Sampling, SpeechRequest, Style
from tests.laws import FamilyLaws, run_alone, run_together
from tests.pretended_gpu import DEVICE, moved_there, pretended_gpu

SETTINGS = [
    Sampling(max_frames=12),
    Sampling(max_frames=12, greedy=True, predictor_greedy=True),
    Sampling(max_frames=12, greedy=True, repetition_penalty=1.5),
    Sampling(max_frames=12, top_k=0, predictor_top_k=0, temperature=1.4),
    Sampling(max_frames=12, top_p=0.6, predictor_top_p=0.4, predictor_top_k=3),
    Sampling(max_frames=12, repetition_penalty=0.7, predictor_greedy=True),
]


def whole(kit, name, dtype=torch.float32):
    model = load(kit / "checkpoints" / name, device=torch.device("cpu"), dtype=dtype)
    model.step_whole_frames()
    return model


@pytest.fixture(scope="module")
def custom(kit):
    return whole(kit, "custom_voice_1p7b")


def request_with(sampling, seed=3, text="The old ferry stayed in the harbour."):
    return SpeechRequest(text, voice="ryan", seed=seed, sampling=sampling)


class TestLaws(FamilyLaws):
    tolerance = 0.0
    can_grow = False

    @pytest.fixture
    def model(self, custom):
        return custom

    @pytest.fixture
    def requests(self):
        return [
            SpeechRequest("Hello there.", voice="ryan", seed=1, sampling=Sampling(max_frames=9)),
            SpeechRequest(
                "The old ferry stayed in the harbour.",
                voice="eric",
                seed=2,
                sampling=Sampling(max_frames=14, temperature=0.7, top_k=9, predictor_top_p=0.7),
                style=Style(instruction="Calm."),
            ),
            SpeechRequest("你好。", voice="serena", seed=3, sampling=Sampling(greedy=True, max_frames=6)),
        ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tokens_are_those_of_single_steps(kit, dtype):
    name = "custom_voice_1p7b"
    folder = kit / "checkpoints" / name
    plain = load(folder, device=torch.device("cpu"), dtype=dtype)
    model = whole(kit, name, dtype)
    for seed, sampling in enumerate(SETTINGS):
        prompt = plain.prepare(request_with(sampling, seed))[0]
        expected = run_alone(plain, prompt)
        assert len(expected) > 2
        assert run_alone(model, prompt).tolist() == expected.tolist(), sampling


def test_rows_of_different_settings_run_together(custom, loaded):
    plain = loaded("custom_voice_1p7b")
    prompts = [plain.prepare(request_with(s, seed))[0] for seed, s in enumerate(SETTINGS)]
    for alone, together in zip(
        [run_alone(plain, prompt) for prompt in prompts], run_together(custom, prompts), strict=True
    ):
        assert together.tolist() == alone.tolist()


def test_a_row_that_rests_is_left_as_it_is(custom):
    prompts = [custom.prepare(request_with(Sampling(max_frames=8), seed))[0] for seed in (1, 2, 3)]
    alone = [run_alone(custom, prompt) for prompt in prompts]
    with torch.inference_mode():
        custom.allocate(3, max(prompt.positions for prompt in prompts))
        running = [custom.start(prompt, [slot]) for slot, prompt in enumerate(prompts)]
        tokens = [[], [], []]
        for turn in range(100):
            # The first pauses in every second turn, the second in every third.
            going = [i for i in range(3) if not running[i].is_finished and turn % (i + 2) != 1]
            if not going:
                continue
            for index, step in zip(going, custom.step([running[i] for i in going]), strict=True):
                tokens[index].append(step.tokens)
                running[index].is_finished = step.is_final
            if all(utterance.is_finished for utterance in running):
                break
    assert all(utterance.is_finished for utterance in running)
    for parts, expected in zip(tokens, alone, strict=True):
        assert torch.cat(parts).tolist() == expected.tolist()


def test_a_trace_sees_single_steps_and_others_go_on(custom):
    prompts = [custom.prepare(request_with(Sampling(max_frames=5), seed))[0] for seed in (1, 2)]
    alone = [run_alone(custom, prompt) for prompt in prompts]
    seen = set()
    with torch.inference_mode():
        custom.allocate(2, max(prompt.positions for prompt in prompts))
        first = custom.start(prompts[0], [0])
        tokens = [[], []]
        with tapped(lambda name, _: seen.add(name)):
            running = [first, custom.start(prompts[1], [1])]
            while not all(u.is_finished for u in running):
                going = [u for u in running if not u.is_finished]
                for utterance, step in zip(going, custom.step(going), strict=True):
                    tokens[running.index(utterance)].append(step.tokens)
                    utterance.is_finished = step.is_final
    assert {"talker.logits", "predictor.logits"} <= seen
    for parts, expected in zip(tokens, alone, strict=True):
        assert torch.cat(parts).tolist() == expected.tolist()


def test_narrow_dtype_speaks(kit):
    model = whole(kit, "custom_voice_1p7b", torch.bfloat16)
    prompt = model.prepare(request_with(Sampling(max_frames=6)))[0]
    assert run_alone(model, prompt).shape[1] == model.config.talker.groups


# -- on a device that only exists in name -----------------------------------------------------


SHAPE = FrameShape(
    rows=2, reach=64, talker_best=64, talker_top_p=True, predictor_best=16, predictor_top_p=True
)


def pretended_frame(model, damage=lambda steps: None):
    with pretended_gpu():
        network = moved_there(Network(model.config), torch.bfloat16)
        talker = model.config.talker
        cache = KVCache(
            layers=talker.layers,
            slots=4,
            heads=talker.kv_heads,
            head_dim=talker.head_dim,
            capacity=65,
            dtype=torch.bfloat16,
            device=DEVICE,
        )
        steps = FrameSteps(network, Stacks.of(network), model.config, cache, slots=4)
        assert steps.replay.records
        damage(steps)
        steps._frame(SHAPE)
        return {t.device for t in (steps._out, steps._hidden, steps.logits, steps._seen)}


def test_no_value_is_looked_at_and_nothing_lies_elsewhere(custom):
    assert pretended_frame(custom) == {DEVICE}


def test_the_pretended_gpu_notices_a_look_and_a_stray_tensor(custom):
    def looks(steps):
        inner = steps._choose_talker
        steps._choose_talker = lambda *given: inner(*given) + given[-1].sum().item()

    def strays(steps):
        steps._words = torch.zeros(4, steps._words.shape[1])

    with pytest.raises(DataDependentOutputException):
        pretended_frame(custom, looks)
    with pytest.raises(FakeTensorDeviceMismatchError):
        pretended_frame(custom, strays)


# -- recording --------------------------------------------------------------------------------


def test_a_failed_recording_is_told_and_the_work_goes_on(custom, monkeypatch, caplog):
    prompt = custom.prepare(request_with(Sampling(max_frames=6)))[0]
    expected = run_alone(custom, prompt)

    def fails(self, work, result, reset):
        work()  # as a recording does, before it fails
        raise RuntimeError("no graphs in this driver\nand more")

    monkeypatch.setattr(Replay, "_checked", fails)
    model = copy.copy(custom)
    with torch.inference_mode():
        model.allocate(2, prompt.positions)
        model._frames.replay.records = True
        utterance = model.start(prompt, [1])
        tokens = []
        while not utterance.is_finished:
            (step,) = model.step([utterance])
            tokens.append(step.tokens)
            utterance.is_finished = step.is_final
    assert torch.cat(tokens).tolist() == expected.tolist()
    assert "no graphs in this driver" in caplog.text
    assert "and more" not in caplog.text
    assert not model._frames.replay.records


def test_every_size_of_batch_and_reach_is_recorded_ahead(custom, monkeypatch):
    keys = []
    monkeypatch.setattr(Replay, "record", lambda self, key, work, result: keys.append(key))
    model = copy.copy(custom)
    with torch.inference_mode():
        model.allocate(6, 300)
        model.warm_up()
        assert keys == []  # nothing is recorded on this device
        model._frames.replay.records = True
        model.warm_up()
    assert {(key.rows, key.reach) for key in keys} == {
        (rows, reach) for rows in (1, 2, 4, 6) for reach in (128, 256, 300)
    }
    assert len(set(keys)) == len(keys)


def test_recorded_frames_are_those_that_were_not(custom, monkeypatch):
    """With a recorder that does the work again: keys, checks and rows at rest are as on a GPU."""
    settings = [replace(s, max_frames=4 + 3 * i) for i, s in enumerate(SETTINGS)]
    prompts = [custom.prepare(request_with(s, seed))[0] for seed, s in enumerate(settings)]
    expected = [run_alone(custom, prompt).tolist() for prompt in prompts]
    monkeypatch.setattr(Replay, "_capture", lambda self, work: (work(), SimpleNamespace(replay=work))[1])
    model = copy.copy(custom)
    allocate = model.allocate

    def recording(slots, positions):
        allocate(slots, positions)
        model._frames.replay.records = True

    model.allocate = recording
    assert [tokens.tolist() for tokens in run_together(model, prompts)] == expected
    assert model._frames.replay.records, "a recording failed"
    assert len(model._frames.replay) > 1


def test_few_frames_are_recorded_whatever_callers_ask_for(custom):
    with torch.inference_mode():
        custom.allocate(1, 200)
    steps, shapes = custom._frames, set()
    for top_k in (None, 0, 1, 50, 64, 65, 1000, 10**6):
        for top_p in (None, 0.1, 0.99, 1.0):
            steps._samplings = [Sampling(top_k=top_k, top_p=top_p, predictor_top_k=50)]
            shapes.add(steps._shape_of([0], 1, 128))
    kinds = {(shape.talker_best, shape.talker_top_p) for shape in shapes}
    assert kinds == {(0, False), (64, False), (64, True), (custom.config.talker.vocabulary, True)}
    assert len(shapes) == 4


def test_room_is_freed_before_new_is_made(custom, monkeypatch):
    model = copy.copy(custom)
    with torch.inference_mode():
        model.allocate(1, 64)
        old = weakref.ref(model._cache), weakref.ref(model._frames)
        made = []

        def cache(**sizes):
            made.append([reference() for reference in old])
            return KVCache(**sizes)

        monkeypatch.setattr("sonant.families.qwen3_tts.model.KVCache", cache)
        model.allocate(1, 128)
    assert made == [[None, None]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_frames_are_those_of_the_cpu(kit, loaded):
    plain = loaded("custom_voice_1p7b")
    model = load(kit / "checkpoints" / "custom_voice_1p7b", device=torch.device("cuda"), dtype=torch.float32)
    for seed, sampling in enumerate(SETTINGS):
        prompt = plain.prepare(request_with(sampling, seed))[0]
        there = model.prepare(request_with(sampling, seed))[0]
        assert run_alone(model, there).tolist() == run_alone(plain, prompt).tolist()
    assert model._frames.replay.records, "recording failed"
    assert len(model._frames.replay) > 0
    prompts = [model.prepare(replace(request_with(s), seed=i))[0] for i, s in enumerate(SETTINGS)]
    alone = [run_alone(model, prompt) for prompt in prompts]
    for one, other in zip(alone, run_together(model, prompts), strict=True):
        assert one.tolist() == other.tolist()


def test_scores_that_are_no_numbers_are_told_by_the_frame_after_them(kit):
    model = whole(kit, "custom_voice_1p7b")
    (prompt,) = model.prepare(request_with(SETTINGS[0]))
    with torch.inference_mode():
        model.allocate(1, prompt.positions)
        utterance = model.start(prompt, [0])
        model.step([utterance])
        assert model.ending(utterance).rank > 0
        head = model.network.talker.codec_head.weight
        kept = head.clone()
        head[5] = float("nan")
        with pytest.raises(NotFiniteError, match="no numbers"):
            model.step([utterance])
        head.copy_(kept)
