"""Reinforcement learning: SAC on RLlib over the vectorised portfolio environment."""
