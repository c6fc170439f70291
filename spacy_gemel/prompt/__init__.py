"""The prompt: its template, the demonstrations it shows, and how they are retrieved."""
