"""The sample of a pipeline: an export script that prunes, checks what it cost, and goes on."""
