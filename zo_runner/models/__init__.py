"""Load and adapt a language model; loss of a batch at any point, score of a split."""
