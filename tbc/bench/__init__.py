"""How fast the kernels and layers are, beside what the machine can do and beside others."""
