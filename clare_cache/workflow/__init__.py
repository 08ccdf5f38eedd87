"""The user's verbs as functions, one per command; the layer where the two stages meet."""
