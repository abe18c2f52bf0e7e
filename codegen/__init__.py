"""Program -> LLVM -> object, archive, library, header; the only folder that imports llvmlite."""
