"""The base model: loading, LoRA, the loss, batches."""
