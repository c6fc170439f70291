"""Text-only linking on WikiDiverse's val rows with a small language model trained from nothing, beside baselines."""
