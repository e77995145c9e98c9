"""The market answering a decision: costs, fills, accounts."""
