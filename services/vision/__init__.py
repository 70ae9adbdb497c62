"""What happens to pixels before a graph and to its numbers after it: decode, judge, regions.

Imported by the trainer and by `serve`, so that both see the same pixels. Needs numpy and Pillow
only; `runtime` adds ONNX Runtime, imported when a model is opened, for use without a stack.
"""
