"""The who: a small language, definition -> expression -> SQL predicate."""
