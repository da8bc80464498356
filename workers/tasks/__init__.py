"""What a job trains."""
