"""Ring by ring: which boxes are asked next, when a rollout goes on, and when it stops by itself."""
