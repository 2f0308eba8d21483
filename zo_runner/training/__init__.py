"""Train one method on one task under a budget."""
