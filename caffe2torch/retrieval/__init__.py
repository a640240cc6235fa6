"""Binary codes as plain numpy: what they are, where they are kept and how they are compared. Knows nothing of Caffe."""
