package iptest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace puts the test into a network namespace of its own, with loopback up. The goroutine stays locked to its
// thread, which ends with it, and the namespace with both. Threads started by others are not in it.
func Namespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("new network namespace: %v", err)
		}
		t.Skipf("new network namespace: %v (root is needed)", err)
	}
	Run(t, "ip link set lo up")
}

// Go runs f in a goroutine that is in the namespace of the calling test, and returns a function that waits for its end.
func Go(t testing.TB, f func()) (wait func()) {
	t.Helper()
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(ns, unix.CLONE_NEWNET)
		_ = unix.Close(ns)
		if err == nil {
			f()
		}
		ended <- err
	}()
	return func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// Run runs commands, one in each line, in the calling thread's namespace, and returns what they print. Commands of ip
// that follow one another are run by one process: most of what one costs is its start.
func Run(t testing.TB, commands string) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(commands) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	var out strings.Builder
	for len(lines) > 0 {
		command, batch := strings.Fields(lines[0]), Batch(lines)
		count := max(1, len(batch))
		if count > 1 {
			command = []string{"ip", "-batch", "-"}
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdin = strings.NewReader(strings.Join(batch, "\n"))
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(lines[:count], "\n"), err, text)
		}
		out.Write(text)
		lines = lines[count:]
	}
	return out.String()
}

// Batch returns the lines for "ip -batch" of the commands of ip that the list begins with. A command with options of ip
// itself is none.
func Batch(commands []string) (lines []string) {
	for _, c := range commands {
		line, isIP := strings.CutPrefix(c, "ip ")
		if !isIP || strings.HasPrefix(strings.TrimSpace(line), "-") {
			break
		}
		lines = append(lines, line)
	}
	return lines
}

// Underlay makes a bridge of that name with an address, up: an interface that tunnels can leave by. It gets no
// link-local address, which some kernels give a bridge without ports, and others do not.
func Underlay(t testing.TB, name, prefix string) {
	t.Helper()
	Run(t, fmt.Sprintf("ip link add %[1]s type bridge\nip link set %[1]s addrgenmode none\n"+
		"ip addr add %[2]s dev %[1]s\nip link set %[1]s up", name, prefix))
}
