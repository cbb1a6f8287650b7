"""The voice of a job for its model: designed now, or found where it is kept."""

from __future__ import annotations

from sonant.catalogue import registry
from sonant.readings.job import Job
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from sonant.voices.finding import find_voice_or_file
from sonant.voices.library import VoiceLibrary


def job_voice(job: Job, spec: ModelSpec) -> Voice | str | None:
    """What the job's model speaks with; None is its own choice. Raises VoiceError, RequestError, ..."""
    if job.design_model is not None:
        with registry.load(job.design_model, device=job.device, dtype=job.dtype, slots=1) as designer:
            return designer.design(job.design_request())
    if job.voice is None:
        return None
    return find_voice_or_file(job.voice, spec=spec, shelf=VoiceLibrary(), transcript=job.transcript)
