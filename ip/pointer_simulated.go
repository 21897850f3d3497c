//go:build simulated

package ip

import "sync"

// pointers has one pointer for each value that was asked for. It is not part of the daemon, but of the benchmark that
// simulates a cluster in one process: its hosts have equal objects once.
var pointers sync.Map

// pointer returns the pointer to a value that nobody changes. Any goroutine may call it.
func pointer[T comparable](v T) *T {
	found, ok := pointers.Load(v)
	if !ok {
		found, _ = pointers.LoadOrStore(v, &v)
	}
	return found.(*T)
}
