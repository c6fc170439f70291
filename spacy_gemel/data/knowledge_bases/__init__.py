"""Knowledge bases that people hold, turned into the entities.jsonl that build-kb reads."""
