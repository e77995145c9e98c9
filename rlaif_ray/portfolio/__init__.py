"""From what is expected and how it moves together to weights."""
