"""Two mistakes in a network, and how parity finds them: python examples/find_a_fault.py CHECKPOINT CLIP

CHECKPOINT is a CosyVoice3 folder. Writes right.safetensors and port.safetensors for `sonant parity compare`.
"""

import sys

from sonant.catalogue.registry import load_model
from sonant.families.cosyvoice3 import estimator
from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.task import Task
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest

checkpoint, clip = sys.argv[1:]
task = Task(request=SpeechRequest("Hello there.", seed=3), audio=Audio.read(clip), max_steps=5)
right = record(load_model(checkpoint, device="cpu"), task)
right.save("right.safetensors")

estimator.TIME_SCALE = 100.0  # the first mistake: time enters multiplied by 1000
port = load_model(checkpoint, device="cpu")
port.vocoder.conv_post.bias.data += 0.01  # the second one, hidden behind what the first one spoils
wrong = record(port, task)
wrong.save("port.safetensors")

print(compare(right, wrong).headline)
print(bisect(port, right).headline)
