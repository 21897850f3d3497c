//go:build soak

package lab_test

import (
	"fmt"
	"strconv"
	"strings"
)

// measured are the metrics of a process, and by how much each may be larger at the end: by a share of what it was, and
// by so many more.
var measured = []struct {
	metric string
	share  float64
	more   float64
}{
	{"process_resident_memory_bytes", 0.3, 16 << 20},
	{"process_open_fds", 0, 4},
	{"go_goroutines", 0, 4},
}

// usage is what a host needs.
type usage struct {
	metrics map[string]float64 // of a daemon that was never ended; nil: it may have been
	objects int                // lines about objects in the kernel
}

func (s *soak) usage() []usage {
	s.t.Helper()
	out := make([]usage, len(s.hosts))
	for i, h := range s.hosts {
		out[i].objects = strings.Count(s.look(h), "\n")
		if s.lives(i) {
			out[i].metrics = s.metrics(i)
		}
	}
	return out
}

// metrics reads those of a daemon.
func (s *soak) metrics(i int) map[string]float64 {
	s.t.Helper()
	_, text, err := s.daemons[i].Get(s.ctx, "/metrics")
	s.ok(err)
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] = v
		}
	}
	return out
}

// wantFlat wants every host to need what it did before.
func (s *soak) wantFlat(before []usage) {
	s.t.Helper()
	s.await(func() error {
		for i, now := range s.usage() {
			if now.objects != before[i].objects {
				return fmt.Errorf("host%d has %d objects in the kernel, before %d", i+1, now.objects, before[i].objects)
			}
			for _, m := range measured {
				got, was := now.metrics[m.metric], before[i].metrics[m.metric]
				if got > was*(1+m.share)+m.more {
					return fmt.Errorf("host%d: %s is %.0f, before %.0f", i+1, m.metric, got, was)
				}
			}
		}
		return nil
	})
	for i, now := range s.usage() {
		for _, m := range measured {
			if s.lives(i) {
				s.t.Logf("host%d: %s %.0f, before %.0f", i+1, m.metric, now.metrics[m.metric], before[i].metrics[m.metric])
			}
		}
	}
}
