"""What a mention usually means: P(entity | mention), and its share in a candidate's score. Knows nothing of torch."""
