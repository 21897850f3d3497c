//go:build !simulated

package ip

// pointer returns a pointer to a value that nobody changes.
func pointer[T comparable](v T) *T { return &v }
