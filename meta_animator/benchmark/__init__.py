"""How fast the parts of a run are on this machine, and what they ask of it; also against diffusers. Only scripts/ know it."""
