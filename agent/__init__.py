"""Evidence, themes, writer, verifier: from a behaviour log to a profile whose claims cite it."""
