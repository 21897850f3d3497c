package main_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestProgramIsSmallAndStatic(t *testing.T) {
	const most = 8 << 20 // bytes
	h := newHost(t)
	info, err := os.Stat(h.flannel)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if info.Size() > most {
		t.Errorf("%d bytes, want at most %d", info.Size(), most)
	}
	program, err := elf.Open(h.flannel)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libs, err := program.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("it needs %v (%v), want nothing", libs, err)
	}
}

// costs returns two ways to measure an ADD of a delegate that does nothing: alone, and called by the plugin.
func costs(tb testing.TB) (delegateAlone, withPlugin func() time.Duration) {
	h := newHost(tb)
	path, _ := h.fake("nothing", `[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0"}'; exit 0`)
	delegate, _, _ := strings.Cut(path, ":")
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), path: path,
		conf: h.conf("1.1.0", `"delegate":{"type":"nothing"}`)}
	run := func(program string) time.Duration {
		cmd := exec.Command(program)
		cmd.Env, cmd.Stdin = h.command(c).Env, strings.NewReader(c.conf)
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Fatalf("%s: %v\n%s", program, err, out)
		}
		took := time.Since(start)
		_ = os.RemoveAll(h.dir + "/saved")
		return took
	}
	return func() time.Duration { return run(delegate + "/nothing") }, func() time.Duration { return run(h.flannel) }
}

func BenchmarkAdd(b *testing.B) {
	delegateAlone, withPlugin := costs(b)
	var alone, with time.Duration
	for b.Loop() {
		alone += delegateAlone()
		with += withPlugin()
	}
	b.ReportMetric(float64((with-alone).Microseconds())/float64(b.N), "µs-of-plugin/op")
	b.ReportMetric(float64(alone.Microseconds())/float64(b.N), "µs-of-delegate/op")
}
