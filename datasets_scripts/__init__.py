"""Raw recordings to trials: one converter per source, each importable (`convert`) and a command (`--help`)."""
