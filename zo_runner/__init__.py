"""zo-run: an experiment runner for zeroth-order fine-tuning of language models through LoRA."""

__version__ = "0.1.0"
