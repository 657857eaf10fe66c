"""Times in free text: from an answer to tokens, from tokens to windows in seconds."""
