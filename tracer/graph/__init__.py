"""What a recorded graph is made of: the shapes, storages and roles of tensors."""
