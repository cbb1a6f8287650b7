"""What a measurement says."""

TEXT = (
    "The evening train to the coast was late again, so we sat on the platform and talked about the summer "
    "until the lights of the town went out one after another."
)
FIRST_AUDIO_TEXT = (
    "Good evening, and thank you for waiting so patiently; how may I help you with your journey home tonight?"
)


def pieces(text: str) -> list[str]:
    """Words with the space before them, as byte-level BPE parts them."""
    return [word if index == 0 else f" {word}" for index, word in enumerate(text.replace(",", "").split())]
