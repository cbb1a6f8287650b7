"""The grammars of IndexTTS2's original front end, compiled from the rules of WeTextProcessing."""
