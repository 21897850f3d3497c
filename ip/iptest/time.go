package iptest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Time returns a bound of time for this machine: $LAB_SCALE says how many times slower than others it is. A virtual
// machine without hardware support is (hack/kernels).
func Time(d time.Duration) time.Duration {
	if scale, err := strconv.ParseFloat(os.Getenv("LAB_SCALE"), 64); err == nil {
		return time.Duration(float64(d) * scale)
	}
	return d
}

// idleStart is what a program of ours takes at most to start on an idle machine.
const idleStart = 100 * time.Millisecond

// Slower returns how many times slower than an idle one the machine is just now, at least 1: by how long a program
// takes to start, and how many threads a processor has to run in turn.
func Slower(program string, args ...string) float64 {
	worst, turns := idleStart, 0.0
	for range 3 {
		start := time.Now()
		_ = exec.Command(program, args...).Run()
		worst = max(worst, time.Since(start))
		turns = max(turns, float64(running())/float64(runtime.NumCPU()))
	}
	return max(float64(worst)/float64(idleStart), turns)
}

// running returns how many threads of the machine run or could (proc_loadavg(5)).
func running() (n int) {
	text, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 3 {
		_, _ = fmt.Sscanf(fields[3], "%d/", &n)
	}
	return n
}
