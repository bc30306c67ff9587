"""Meta-Animator: animate a person from a few photos and a driving motion."""

__version__ = "0.1.0"
