"""What a config would take: memory, hours of training, mentions per second."""
