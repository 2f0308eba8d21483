"""Schema, validation, identity and instantiation of configurations. No torch."""
