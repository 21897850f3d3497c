//go:build flannel && !kernels

package lab_test

// kernelSwaps are those of which the released flannel needs modules that not every kernel has.
var kernelSwaps []swap
