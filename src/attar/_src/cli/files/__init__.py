"""Commands on one `.attar` file, which run without PyTorch."""
