"""rlaif_ray: learns to trade from AI feedback that the market judges, distributed by Ray."""

__version__ = "0.1.0"
