"""The demo's world: rendered people as data sets, and the embedded base model that is trained on them."""
