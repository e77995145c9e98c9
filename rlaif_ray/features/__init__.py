"""Columns over (symbol, time), each known at its bar: state-free ones here, read from the lake by every later stage."""
