#!/bin/sh
# Compiles the programs for both byte orders. Needs clang, llvm-strip and the kernel's headers (Debian: clang-14, llvm-14,
# linux-libc-dev). What it makes is committed, with the checksum of what it was made from.
set -eu
cd "$(dirname "$0")"
go tool bpf2go -cc "${CLANG:-clang-14}" -strip "${STRIP:-llvm-strip-14}" -go-package offload -target bpfel,bpfeb \
	-no-global-types -tags linux programs datapath.c -- \
	-O2 -g -Wall -Wextra -Werror -mcpu=v2 -I"/usr/include/$(uname -m)-linux-gnu"
cat datapath.c kernel.h generate.sh | sha256sum | cut -d ' ' -f 1 >source.sha256
