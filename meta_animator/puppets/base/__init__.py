"""Training, export and judgement of the embedded base model."""
