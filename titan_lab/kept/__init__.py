"""A folded history on disk: written once, mapped into memory, renewed where the store has news."""
