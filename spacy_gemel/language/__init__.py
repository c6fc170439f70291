"""The frozen causal language model and its tokenizer. Knows nothing of spaCy, of images and of names."""
