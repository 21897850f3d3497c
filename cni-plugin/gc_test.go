package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slow is a host with a delegate that does not end before it is allowed to, and a container that is attached or being
// attached.
type slow struct {
	*host
	container call
	notes     string
}

func newSlow(t *testing.T, verb string) slow {
	t.Helper()
	h := newHost(t)
	path, notes := h.fake("slow", fmt.Sprintf(`[ $CNI_COMMAND = %s ] && while [ ! -e %s/go ]; do sleep 0.01; done
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0"}'; exit 0`, verb, h.dir))
	return slow{h, call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), path: path,
		conf: h.conf("1.1.0", `"delegate":{"type":"slow"}`)}, notes}
}

// start starts a call of the plugin for the container.
func (s slow) start(verb string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	c := s.container
	if c.verb = verb; verb == "GC" {
		c.conf = valid(c.conf)
	}
	cmd := s.command(c)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.WaitDelay = out, time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd, out
}

func (s slow) allow() {
	if err := os.WriteFile(s.dir+"/go", nil, 0o600); err != nil {
		s.t.Error(err)
	}
}

// delegateRuns waits until the delegate has been called with a verb.
func (s slow) delegateRuns(verb string) {
	s.t.Helper()
	s.await("the delegate is not called with "+verb, func() string {
		text, err := os.ReadFile(s.notes)
		if slices.Contains(strings.Fields(string(text)), verb) {
			return ""
		}
		return fmt.Sprint(string(text), err)
	})
}

// waits waits until a call waits for the lock of another one.
func (s slow) waits(cmd *exec.Cmd) {
	s.t.Helper()
	s.await("nobody waits for the lock", func() string {
		text, err := os.ReadFile("/proc/locks")
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(" %d ", cmd.Process.Pid)) {
				return ""
			}
		}
		return fmt.Sprint(string(text), err)
	})
}

func (s slow) succeeds(cmd *exec.Cmd, out *bytes.Buffer) {
	s.t.Helper()
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("%v: %s", err, out)
	}
}

func TestGarbageCollectionLeavesAnAttachingThatIsUnderWay(t *testing.T) {
	s := newSlow(t, "ADD")
	add, added := s.start("ADD")
	s.delegateRuns("ADD")
	gc, out := s.start("GC")
	s.waits(gc)
	s.allow()
	s.succeeds(add, added)
	s.succeeds(gc, out)
	if got := s.list("saved"); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("saved %v, want c1", got)
	}
	s.must(call{verb: "GC", path: s.container.path, conf: valid(s.container.conf)})
	s.clean()
}

func TestGarbageCollectionDoesNotWaitForWhatIsValid(t *testing.T) {
	s := newSlow(t, "DEL")
	add, added := s.start("ADD")
	s.succeeds(add, added)
	del, deleted := s.start("DEL")
	s.delegateRuns("DEL")
	s.must(call{verb: "GC", path: s.container.path, conf: valid(s.container.conf, "c1/eth0")})
	s.allow()
	s.succeeds(del, deleted)
	s.clean()
}

func TestGarbageCollectionWaitsForTheDelegateOfAKilledPlugin(t *testing.T) {
	s := newSlow(t, "ADD")
	add, _ := s.start("ADD")
	s.delegateRuns("ADD")
	_ = add.Process.Kill()
	_ = add.Wait()
	gc, out := s.start("GC")
	s.waits(gc)
	s.allow()
	s.succeeds(gc, out)
	s.clean()
	if got, want := verbs(t, s.notes), []string{"ADD", "DEL", "GC"}; !slices.Equal(got, want) {
		t.Errorf("the delegate was called with %v, want %v", got, want)
	}
}

func TestGarbageCollectionAndDetachingDoNotDoTheSameWorkTwice(t *testing.T) {
	s := newSlow(t, "DEL")
	add, added := s.start("ADD")
	s.succeeds(add, added)
	del, deleted := s.start("DEL")
	s.delegateRuns("DEL")
	gc, out := s.start("GC")
	s.waits(gc)
	s.allow()
	s.succeeds(del, deleted)
	s.succeeds(gc, out)
	s.clean()
	if got, want := verbs(t, s.notes), []string{"ADD", "DEL", "GC"}; !slices.Equal(got, want) {
		t.Errorf("the delegate was called with %v, want %v", got, want)
	}
}

func TestGarbageCollectionSweepsWhatAKilledPluginLeftBeforeItsFileWasInPlace(t *testing.T) {
	h := newHost(t)
	if err := os.Mkdir(h.dir+"/saved", 0o700); err != nil {
		t.Fatal(err)
	}
	path := h.dir + "/saved/.new-1234"
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Second)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	collect := call{verb: "GC", conf: valid(h.conf("1.1.0"))}
	h.must(collect)
	if got := h.list("saved"); !slices.Equal(got, []string{".new-1234"}) {
		t.Errorf("saved %v, want the file that is locked: its plugin lives", got)
	}
	file.Close()
	h.must(collect)
	h.clean()
}
