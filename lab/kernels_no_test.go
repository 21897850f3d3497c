//go:build !kernels

package lab_test

// kernelHasAll reports whether the kernel has all modules, such as ipip and wireguard.
const kernelHasAll = false

// withoutWireGuard takes WireGuard from the kernel, which has none.
func (c *cluster) withoutWireGuard() (back func()) { return func() {} }
