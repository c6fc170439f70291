"""One command per figure."""
