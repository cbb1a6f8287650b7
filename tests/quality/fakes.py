"""Judges without networks: what is heard depends on the samples, so that settings make a difference."""

from sonant.quality.dnsmos import Mos
from sonant.quality.judges import Judgement
from sonant.text.scoring import score_words


class FakeJudges:
    """Hears the text, and garbage where a clip is louder than `loud`; what it was asked is in `asked`."""

    remarks = ("likeness is not judged here",)

    def __init__(self, loud=10.0):
        self.loud, self.asked = loud, []

    def judge(self, audio, *, text=None, language=None, reference=None):
        self.asked.append((text, language, reference))
        is_loud = abs(audio.samples).mean() > self.loud
        heard = "zu fo mi re la ti" if is_loud else text
        return Judgement(
            heard=heard,
            words=score_words(text, heard),
            mos=Mos(2.0 if is_loud else 3.6, 3.0),
            similarity=0.9 if reference is not None else None,
        )
