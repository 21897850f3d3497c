//go:build simulated

package lab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// aloneVariable has this program be one host of a cluster that another process simulates. Its value is the URL of the
// store, the number of the host, and that of all hosts.
const aloneVariable = "SIMULATED_ALONE"

// startAlone starts host number i of n in a process of its own. It ends when it routes to all others, and says how many
// requests that took.
func (c *simulation) startAlone(i, n int) *exec.Cmd {
	cmd := exec.CommandContext(c.ctx, os.Args[0], "-test.run", "^TestSimulatedHost$", "-simulated-backend",
		*simulationBackend)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", aloneVariable, c.url, i, n),
		"LAB_PROGRAMS="+filepath.Dir(binaries.Etcd))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		c.b.Fatal(err)
	}
	return cmd
}

// TestSimulatedHost is a host that startAlone has started, with the timeouts of a real one.
func TestSimulatedHost(t *testing.T) {
	value := os.Getenv(aloneVariable)
	if value == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), simulationTime)
	defer cancel()
	c := newSimulation(ctx, t)
	var number, all int
	if _, err := fmt.Sscan(value, &c.url, &number, &all); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	h := c.join(number)
	for h.kernel.routes.Load() != int64(all-1) {
		if ctx.Err() != nil {
			t.Fatalf("host %d routes to %d others, want %d", number, h.kernel.routes.Load(), all-1)
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("host %d, in a process of its own, routes to %d others after %s; requests: %v\n", number, all-1,
		time.Since(start).Round(10*time.Millisecond), c.requests)
	h.stop()
}
