"""`python -m onnxprune` is the command `onnxprune`."""

from onnxprune.cli import main

if __name__ == "__main__":
    main()
