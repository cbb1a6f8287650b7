"""What lies in a model's folder: tensors, configs, and the memory they will take."""
