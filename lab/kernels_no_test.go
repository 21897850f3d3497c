//go:build !kernels

package lab_test

// hasIPIP reports whether the kernel has devices of the type ipip.
const hasIPIP = false
