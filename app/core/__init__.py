"""Words and pure functions that every layer shares; standard library only."""
