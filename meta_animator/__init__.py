"""Meta-Animator: animate a person from a few photos and a driving motion."""
