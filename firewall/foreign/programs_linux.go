package foreign

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// programTime bounds one run of a program, which may wait for the lock of another one.
const programTime = 15 * time.Second

// Programs runs the programs of the host.
type Programs struct{}

// sbin is where the programs are although the path of a service may not say so.
const sbin = "/usr/sbin:/sbin:/usr/local/sbin"

func (Programs) find(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for dir := range strings.SplitSeq(sbin, ":") {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, true
		}
	}
	return "", false
}

func (r Programs) Has(name string) bool {
	_, ok := r.find(name)
	return ok
}

func (r Programs) Run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	path, ok := r.find(name)
	if !ok {
		return "", fmt.Errorf("program %s: %w", name, exec.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out.String(), nil
}

func (Programs) Forwards(is4 bool) bool {
	file := "/proc/sys/net/ipv6/conf/all/forwarding"
	if is4 {
		file = "/proc/sys/net/ipv4/ip_forward"
	}
	text, err := os.ReadFile(file)
	return err != nil || strings.TrimSpace(string(text)) != "0"
}

func (Programs) LegacyTables(is4 bool) []string {
	file := "/proc/thread-self/net/ip6_tables_names"
	if is4 {
		file = "/proc/thread-self/net/ip_tables_names"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil // the kernel has none
	}
	return strings.Fields(string(text))
}
