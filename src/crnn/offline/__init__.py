"""The Ascend deliverable's offline pipeline, file for file: prepared words, labels, info files, results, scores."""
