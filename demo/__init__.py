"""How the embedded demonstration model is made: its text, its tokenizer and its training."""
