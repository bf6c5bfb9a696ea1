"""What is measured and shown: evaluation, statistics, plots, report, model card."""
