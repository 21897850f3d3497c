package need

import (
	"testing"
	"time"
)

// Until waits for a condition, and returns how long that took. The test fails if it does not hold within most.
func Until(t testing.TB, what string, most time.Duration, condition func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for ; !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > most {
			t.Fatalf("not within %s: %s", most, what)
		}
	}
	return time.Since(start)
}
