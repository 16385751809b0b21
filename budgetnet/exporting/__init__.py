"""Export of trained networks: safetensors weights, ONNX (float32 or int8), torch.export programs, plain Python files.

The weights of a run's best epoch are exported, on the CPU and in evaluation mode, without test-time augmentation. ONNX,
torch.export and Python files take images as float32 (N, channels, height, width) with values from 0 to 1, for any N,
and normalise them; a safetensors file is for the network built from the spec, which takes normalised images. All return
logits, float32 (N, num_classes).
"""
