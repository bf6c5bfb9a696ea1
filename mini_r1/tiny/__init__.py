"""The tiny base model of `make aha`: its tokenizer, its texts, its pretraining."""
