package etcdv3

import "time"

// CheckEach has a store check its watches that often.
func CheckEach(s *Store, pause time.Duration) { s.checks = pause }
