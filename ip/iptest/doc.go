// Package iptest helps to test what stands on the kernel: a fake kernel that fails on demand, and network
// namespaces of the real one.
package iptest
