"""Networks that others have published: where to find them, and what their licences allow. `published.yaml` is the list."""
