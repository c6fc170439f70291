"""The mini world: real ambiguous names, drawn pictures, short captions, and three small models trained on them."""
