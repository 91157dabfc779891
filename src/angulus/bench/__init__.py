"""What is timed, beside floors and peers in the same run."""
