"""The programs that make the graphs need the frameworks; they are run by hand."""

collect_ignore_glob = ["make_*.py"]
