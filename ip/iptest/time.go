package iptest

import (
	"os"
	"strconv"
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
