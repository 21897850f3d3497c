// Package iptest helps to test what stands on the kernel: a fake kernel that fails on demand, network namespaces of the
// real one, and bounds of time.
package iptest
