"""From a question to the tokens that a policy continues."""
