"""From instructions to code in memory: LLVM's builder, dot products, micro-kernels, objects."""
