"""Who says what: marks, scripts and quotations by rule; a cast file; several models in one reading."""

import contextlib
import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from sonant.books.cast import NARRATOR, Cast, cast_of, read_cast, starter_toml
from sonant.books.document import Block, Chapter
from sonant.books.narration import TURN, lines_of
from sonant.books.script import find_roles, roles_found, spans_of
from sonant.books.stage import Stage
from sonant.engine.engine import Engine
from sonant.errors import BusyError, CancelledError, RequestError
from sonant.readings.job import Job
from sonant.readings.pieces import PieceStore
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from sonant.text.voice_tags import split_voices
from tests.toy import ToyModel


def chapter(*paragraphs):
    return Chapter(title="One", blocks=tuple(Block("paragraph", text) for text in paragraphs))


def said(cast, *paragraphs):
    return [
        (span.role, span.text.strip()) for spans in spans_of(chapter(*paragraphs), cast) for span in spans
    ]


CAST = cast_of(
    {"roles": {"Alice": {"aliases": ["the girl"]}, "The Hatter": {"aliases": ["hatter"]}, "Mr. Hare": {}}}
)


def test_marks_change_the_speaker_to_the_next_mark():
    text = "Once. [voice: ann] Never! [voice:bea | angry] Go. [VOICE: narrator] So she said."
    assert [(one.voice, one.manner, one.text.strip()) for one in split_voices(text)] == [
        (None, "", "Once."), ("ann", "", "Never!"), ("bea", "angry", "Go."), ("narrator", "", "So she said."),
    ]  # fmt: skip
    lines = lines_of([chapter("Once. [voice: ann] Never!", "Not ever. [voice: narrator] So she said.")])
    assert [(line.role, line.text) for line in lines] == [
        (NARRATOR, "Once."), ("ann", "Never!"), ("ann", "Not ever."), (NARRATOR, "So she said."),
    ]  # fmt: skip


def test_lines_of_a_script_belong_to_their_names():
    script = 'Alice: "Where am I?"\nHATTER (whispering): At tea.\nAnd late.\nNote: this is no role.'
    lines = lines_of([chapter(script)], cast=CAST)
    assert (lines[0].role, lines[0].text) == ("Alice", '"Where am I?"')
    assert {(line.role, line.manner) for line in lines[1:]} == {("The Hatter", "whispering")}
    assert (
        " ".join(" ".join(line.text for line in lines[1:]).split())
        == "At tea. And late. Note: this is no role."
    )


# Lewis Carroll, Alice's Adventures in Wonderland, chapter VII (public domain), and other common shapes.
@pytest.mark.parametrize(
    ("paragraphs", "expected"),
    [
        (
            ["“Have some wine,” the Hatter said kindly.", "“I don’t see any wine,” remarked Alice."],
            [("The Hatter", "“Have some wine,”"), (NARRATOR, "the Hatter said kindly."),
             ("Alice", "“I don’t see any wine,”"), (NARRATOR, "remarked Alice.")],
        ),
        (
            ['"I am," said Alice, "very glad."'],
            [("Alice", '"I am,"'), (NARRATOR, "said Alice,"), ("Alice", '"very glad."')],
        ),
        (
            ["‘It wasn’t very civil of you,’ said Mr. Hare. ‘Not at all.’"],
            [("Mr. Hare", "‘It wasn’t very civil of you,’"), (NARRATOR, "said Mr. Hare."),
             ("Mr. Hare", "‘Not at all.’")],
        ),
        (["“THAT you won’t” thought Alice."], [("Alice", "“THAT you won’t”"), (NARRATOR, "thought Alice.")]),
        (["“Enough!” Said the Hatter."], [("The Hatter", "“Enough!”"), (NARRATOR, "Said the Hatter.")]),
        (["Then Alice asked, “Why?”"], [(NARRATOR, "Then Alice asked,"), ("Alice", "“Why?”")]),
        (["She called it “tea” and left."], [(NARRATOR, "She called it “tea” and left.")]),
        (["„Guten Tag“, sagte Alice."], [("Alice", "„Guten Tag“"), (NARRATOR, ", sagte Alice.")]),
        (
            ["“One,” said Alice.", "“Two,” said the Hatter.", "“Three.”", "“Four.”", "It rained.", "“Five.”"],
            [("Alice", "“One,”"), (NARRATOR, "said Alice."), ("The Hatter", "“Two,”"),
             (NARRATOR, "said the Hatter."),
             ("Alice", "“Three.”"), ("The Hatter", "“Four.”"), (NARRATOR, "It rained."),
             (NARRATOR, "“Five.”")],
        ),
        (
            ["“A long speech,” said Alice. “It goes on", "“to the next paragraph.”"],
            [("Alice", "“A long speech,”"), (NARRATOR, "said Alice."), ("Alice", "“It goes on"),
             ("Alice", "“to the next paragraph.”")],
        ),
    ],
)  # fmt: skip
def test_quotations_belong_to_whom_the_words_beside_them_name(paragraphs, expected):
    assert said(CAST, *paragraphs) == expected


def test_no_word_is_lost_or_said_twice_whoever_says_it():
    paragraphs = [
        "“Have some wine,” the Hatter said. “Do!” [voice: bea] Well. [voice: narrator] “Oh,” she said, “no.",
        '"It is "late" now," said Alice', "the boys’ room ‘is’ here", 'Alice: "Hm', "” odd “ ones ”",
    ]  # fmt: skip
    for cast in (CAST, None, Cast(quotes=False), cast_of({"roles": {"quoted": {}}})):
        words = " ".join(text for _, text in said(cast, *paragraphs)).replace("Alice: ", "")
        plain = " ".join("".join(one.text for one in split_voices(p)) for p in paragraphs).replace(
            "Alice: ", ""
        )
        letters = [c for c in words if c.isalnum()]
        assert letters == [c for c in plain if c.isalnum()]


def test_an_unknown_speaker_is_the_role_quoted_where_there_is_one():
    cast = cast_of({"roles": {"quoted": {"voice": "ann"}}})
    assert said(cast, "“Who?” somebody thought.") == [("quoted", "“Who?”"), (NARRATOR, "somebody thought.")]
    assert said(Cast(quotes=False), "“Who?” said Alice.") == [(NARRATOR, "“Who?” said Alice.")]


def test_roles_are_found_and_written_as_a_cast_to_begin_with(tmp_path):
    text = [
        "“Go,” said Mr. Darcy.", "“No,” Elizabeth Bennet said.", "“Yes,” said Darcy.",
        "“Why?” asked Elizabeth.",
        "“Hm,” he said.", "“Once,” said Jane.", "Chapter 2: Rain",
    ]  # fmt: skip
    found = find_roles([chapter(*text)])
    assert set(found.roles) == {NARRATOR, "Mr. Darcy", "Elizabeth Bennet"}
    assert found.roles["Mr. Darcy"].aliases == ("Darcy",)
    lines = lines_of([chapter(*text)], cast=found)
    roles = roles_found(((line.role, line.text) for line in lines), found)
    assert roles[0].name == NARRATOR
    (tmp_path / "cast.toml").write_text(starter_toml(roles), encoding="utf-8")
    again = read_cast(tmp_path / "cast.toml")
    assert {name: role.aliases for name, role in again.roles.items()} == {
        name: role.aliases for name, role in found.roles.items()
    }


def test_a_name_with_quotes_stays_toml(tmp_path):
    cast = cast_of({"roles": {'The "Duke" of \\ Nowhere\u2028': {}}})
    lines = lines_of([chapter("x")], cast=cast)
    roles = roles_found([(name, "words") for name in cast.roles], cast)
    assert lines
    assert list(tomllib.loads(starter_toml(roles))["roles"]) == list(cast.roles)


def test_another_speaker_inside_a_sentence_comes_quickly():
    lines = lines_of([chapter('"I am," said Alice, "very glad of it all."')], cast=CAST)
    assert [line.pause_after for line in lines][:2] == [TURN, TURN]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1], "no mapping"),
        ({"role": {}}, "'role'; expected roles"),
        ({"roles": {"A": {"voise": "x"}}}, "role A: there is no setting 'voise'.*Did you mean voice"),
        ({"roles": {"A": {"speed": "fast"}}}, "role A: speed is 'fast'; expected a number"),
        ({"roles": {"A": {"speed": 9}}}, "role A: speed is 9; expected 0.25 to 4"),
        ({"roles": {"A": {"gain": 99}}}, "gain of A is 99"),
        ({"roles": {"A": {"gain": float("nan")}}}, "gain of A is nan"),
        ({"roles": {"A": {}, "B": {"aliases": ["a"]}}}, "belongs to both A and B"),
        ({"roles": {"A": {"loudness": -19}}}, "setting of the whole recording"),
        ({"roles": {"A": 3}}, "role A is 3"),
        ({"emotions": {"angry": {"emotion": "cross=1"}}}, "emotion angry: .*cross"),
        ({"quotes": "yes"}, "quotes of the cast"),
        ({"roles": {"A": {"aliases": 5}}}, "aliases of A are 5; expected a list"),
        ({"roles": {"A": {1: "x"}}}, "role A: there is no setting '1'"),
        ({"roles": {"A": {"voice": "a\0b"}}}, None),
        ({"roles": {"A": {"glossary": {"a": 5}}}}, "role A: glossary gives .a. the spelling 5"),
        ({"roles": {"A": {"options": [5]}}}, "role A: '5' is no option"),
        ({"emotions": {"angry": {"voice": "bea"}}}, "emotion angry has voice"),
    ],
)
def test_a_wrong_cast_is_refused_by_name(data, words, tmp_path):
    with pytest.raises(RequestError, match=words):
        cast_of(data, folder=tmp_path)


def test_a_cast_is_read_from_toml_yaml_and_json(tmp_path):
    clip = tmp_path / "ann.wav"
    clip.write_bytes(b"")
    data = {
        "roles": {"Ann": {"voice": "ann.wav", "speed": 1.1, "gain": -2, "emotion": "happy=0.5"}, "Bea": "bea"}
    }
    (tmp_path / "c.json").write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / "c.yaml").write_text(
        "roles:\n  Ann: {voice: ann.wav, speed: 1.1, gain: -2, emotion: {happy: 0.5}}\n  Bea: bea\n",
        encoding="utf-8",
    )
    (tmp_path / "c.toml").write_text(
        '[roles]\nBea = "bea"\n[roles.Ann]\nvoice = "ann.wav"\nspeed = 1.1\ngain = -2\n'
        'emotion = "happy=0.5"\n',
        encoding="utf-8",
    )
    base = Job(text="", settings={"seed": 3, "speed": 0.9}, voice="main")
    for name in ("c.json", "c.yaml", "c.toml"):
        cast = read_cast(tmp_path / name)
        job = cast.job("Ann", base)
        assert job.voice == str(clip)
        assert (job.get("speed"), job.get("seed"), job.get("emotion")[0]) == (1.1, 3, 0.5)
        assert cast.gain("Ann") == pytest.approx(0.7943, abs=1e-4)
        assert cast.job("Bea", base).voice == "bea"
        assert cast.job("narrator", base) == base
    (tmp_path / "bad.toml").write_text("roles = [", encoding="utf-8")
    with pytest.raises(RequestError, match="no valid toml"):
        read_cast(tmp_path / "bad.toml")
    with pytest.raises(RequestError, match="sonant cast BOOK"):
        read_cast(tmp_path / "none.toml")


@pytest.mark.parametrize("voice", ["~nobody-of-this-name/a.wav", "v" * 5000])
def test_a_voice_that_no_path_can_be_is_a_name(voice, tmp_path):
    assert cast_of({"roles": {"A": {"voice": voice}}}, folder=tmp_path).roles["A"].fields["voice"] == voice


def test_a_role_with_another_model_is_watched_and_listened_to_as_the_others():
    base = Job(text="", settings={"guards": "all", "trim": True}, verify=True, verify_tries=3)
    job = cast_of({"roles": {"A": {"model": "other"}}}).job("A", base)
    assert (job.verify, job.verify_tries, job.get("guards"), job.get("trim")) == (True, 3, "all", True)


def test_a_role_with_another_model_leaves_behind_what_belongs_to_the_first():
    base = Job(text="", settings={"seed": 3, "instruction": "calm", "language": "en"}, sampling={"top_k": 5})
    job = cast_of({"roles": {"A": {"model": "other"}}}).job("A", base)
    assert (job.model, job.get("seed"), job.get("language"), job.get("instruction")) == (
        "other",
        3,
        "en",
        None,
    )
    assert job.sampling == {}


def spec(*can):
    return ModelSpec(
        family="f",
        name="n",
        fingerprint="p",
        sample_rate=8000,
        frame_rate=1.0,
        languages=(),
        capabilities=frozenset(can),
    )


def test_a_manner_becomes_what_the_model_can_do():
    cast = cast_of({"emotions": {"Angry": {"speed": 1.2}}})
    job = Job(text="", settings={"instruction": "an old man"})
    assert cast.in_manner(job, "angry", spec()).get("speed") == 1.2
    assert cast.in_manner(job, "happy=0.5, calm", spec("emotion_vector")).get("emotion")[::7] == (0.5, 1.0)
    assert cast.in_manner(job, "in tears", spec("emotion_text")).get("emotion_text") == "in tears"
    assert cast.in_manner(job, "sad", spec("instruction")).get("instruction") == "an old man; sad"
    assert cast.in_manner(job, "sad", spec("clone")) is None


class HighToy(ToyModel):
    """Another model, at another rate."""

    def __init__(self):
        super().__init__()
        self.spec = replace(
            self.spec, name="high", fingerprint="high", sample_rate=12_000, voices=("ann", "bea")
        )


def test_a_scene_of_three_voices_and_two_models_is_one_recording(tmp_path):
    roles = {
        "Alice": {"voice": "bea", "model": "high"},
        "The Hatter": {"voice": "ann", "gain": -6.0206},
    }
    cast = cast_of({"roles": roles})
    scene = chapter(
        "It was tea time.", "“Have some wine,” said the Hatter.", "“I see none at all,” said Alice."
    )
    lines = lines_of([scene], cast=cast)
    loaded = []

    @contextlib.contextmanager
    def open_engine(job):
        loaded.append(f"+{job.model}")
        with Engine(HighToy() if job.model == "high" else ToyModel()) as engine:
            yield engine
        loaded.append(f"-{job.model}")

    def stage(cast=cast):
        return Stage(
            Job(text="", settings={"seed": 1}, model="low"), cast, tmp_path, open_engine=open_engine,
            voice_of=lambda job, spec: job.voice,
        )  # fmt: skip

    played = stage()
    reading = played.speak(lines)
    assert loaded == ["+low", "-low", "+high", "-high"]  # one at a time in memory
    assert [one.line.text for one in reading.heard] == [line.text for line in lines]
    assert played.sample_rate == 12_000
    for one in reading.heard:
        assert len(played.samples_of(one.line)) == round((one.end - one.start) * 12_000)
    hatter = next(line for line in lines if line.role == "The Hatter")
    louder = stage(cast_of({"roles": {**roles, "The Hatter": {"voice": "ann"}}}))
    assert louder.speak(lines).kept == len(lines)  # a gain costs no speech
    np.testing.assert_allclose(played.samples_of(hatter) * 2, louder.samples_of(hatter), rtol=1e-4)
    stopped = stage()
    stopped.cancel()
    with pytest.raises(CancelledError):
        stopped.speak(lines)


def test_a_manner_that_no_model_takes_is_told(tmp_path):
    with Engine(ToyModel()) as engine:
        stage = Stage(
            Job(text=""), Cast(), tmp_path, open_engine=lambda job: contextlib.nullcontext(engine),
            voice_of=lambda job, spec: None,
        )  # fmt: skip
        reading = stage.speak(lines_of([chapter("[voice: narrator | sad] It rained.")]))
    assert [(kind, "'sad' was not used" in message) for _, kind, message in reading.guards][-1:] == [
        ("manner_unused", True)
    ]


def test_a_wrong_voice_of_any_role_is_told_before_the_first_word(tmp_path):
    cast = cast_of({"roles": {"Alice": {"temperature": 0.5, "top_k": 5}}})
    lines = lines_of([chapter("It rained.", "“Oh,” said Alice.")], cast=cast)
    stage = Stage(
        Job(text=""), cast, tmp_path / "x", open_engine=lambda job: pytest.fail("loaded"),
        voice_of=lambda job, spec: None,
    )  # fmt: skip
    with pytest.raises(RequestError, match="no sampling setting top_k"):
        stage.check(lines, lambda name: ToyModel().spec)


class InContext(ToyModel):
    """A toy that clones in context; what it was asked to continue is kept."""

    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, capabilities=frozenset({"clone", "clone_in_context", "preset_voice"}))
        self.continued = []

    def encode_voice(self, audio, transcript):
        self.continued.append((round(audio.seconds, 3), transcript))
        return Voice(name="v", family="toy", fingerprint="toy", clip=audio, transcript=transcript)


def test_a_line_goes_on_from_the_one_before_it_in_its_paragraph(tmp_path):
    chance = np.random.default_rng(1)
    clip = Audio(chance.standard_normal(8000).astype(np.float32) * 0.1, 8000)
    voice = Voice(name="ann", clip=clip, transcript="What Ann says.")
    model = InContext()
    paragraphs = (
        "This is the first sentence of all. This is the second sentence here. And this is the third of them.",
        "Another paragraph begins here now.",
    )

    def read(*texts, carries=True):
        with Engine(model) as engine:
            stage = Stage(
                Job(text=""), Cast(), tmp_path, open_engine=lambda job: contextlib.nullcontext(engine),
                voice_of=lambda job, spec: voice, carries=carries,
            )  # fmt: skip
            return stage.speak(lines_of([chapter(*texts)]))

    first = read(*paragraphs)
    transcripts = [transcript for _, transcript in model.continued]
    assert transcripts == [
        "What Ann says.",
        "What Ann says. This is the first sentence of all.",
        "What Ann says. This is the second sentence here.",
    ]
    spoken = first.heard[0]
    assert model.continued[1][0] == pytest.approx(1.0 + 0.25 + spoken.end - spoken.start, abs=0.01)
    encoded = len(model.continued)
    assert read(*paragraphs).kept == 4
    assert len(model.continued) == encoded  # what is kept costs no encoding
    # The second goes on from another first; the toy says it as before, so the third is kept.
    assert read(paragraphs[0].replace("first", "very first"), paragraphs[1]).kept == 2
    assert read(*paragraphs, carries=False).kept == 2  # the first of each paragraph goes on from nothing


def test_a_line_waits_where_the_queue_is_full(tmp_path, monkeypatch):
    tell, refused = PieceStore.tell, iter([True, True, False, False])

    def busy(store, text, **pace):
        if next(refused):
            raise BusyError("the queue is full", retry_after=0.01)
        return tell(store, text, **pace)

    monkeypatch.setattr(PieceStore, "tell", busy)
    with Engine(ToyModel()) as engine:
        stage = Stage(
            Job(text=""), Cast(), tmp_path, open_engine=lambda job: contextlib.nullcontext(engine),
            voice_of=lambda job, spec: None,
        )  # fmt: skip
        assert len(stage.speak(lines_of([chapter("It rained.")])).heard) == 1
