"""From an image to features: reading, encoding, and the mapper. Knows nothing of text."""
