"""What tests of several rooms use: servers, a cluster, tokenizers, a run's whole life, the documented commands."""
