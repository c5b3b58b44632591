"""What was measured on a file, beside the file."""
