package udp

import "golang.org/x/sys/cpu"

// vectors reports whether addBlocks can be used.
var vectors = cpu.X86.HasAVX2

// addBlocks adds n bytes at p as little-endian words of 32 bits. n is a positive multiple of blockSize.
//
//go:noescape
func addBlocks(p *byte, n int) uint64
