package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// victim is one container of the crash test.
type victim struct {
	call
	added   bool // ADD has succeeded
	deleted bool // DEL has succeeded
	address string
}

// TestPluginThatIsKilledLosesNothing attaches 200 containers at the same time, detaches half of them, and kills many of
// the plugins at a random moment; a garbage collection then finds everything.
//
// Slow: the plugin is killed at many moments of its life, and each time all is looked at.
func TestPluginThatIsKilledLosesNothing(t *testing.T) {
	containers := 200
	if testing.Short() {
		containers = 30
	}
	h := newHost(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	victims := make([]*victim, containers)
	for i := range victims {
		victims[i] = &victim{call: call{id: fmt.Sprintf("c%d", i), ifName: "eth0", netns: h.namespace("pod"),
			conf: h.conf("1.1.0")}}
	}
	calibrate := time.Now()
	h.must(call{verb: "ADD", id: "first", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")})
	moment := 4 * time.Since(calibrate)

	parallel := make(chan struct{}, 16)
	var wait sync.WaitGroup
	for i, v := range victims {
		killAdd, killDel := time.Duration(0), time.Duration(0)
		if random.IntN(2) == 0 {
			killAdd = 1 + time.Duration(random.Int64N(int64(moment)))
		}
		if random.IntN(2) == 0 {
			killDel = 1 + time.Duration(random.Int64N(int64(moment)))
		}
		wait.Go(func() {
			parallel <- struct{}{}
			defer func() { <-parallel }()
			v.live(h, killAdd)
			if i%2 == 0 {
				v.die(h, killDel)
			}
		})
	}
	wait.Wait()
	h.examine(victims)
}

// live attaches the container, and kills the plugin after that time unless it is 0.
func (v *victim) live(h *host, kill time.Duration) {
	out, err := h.killed(v.call, "ADD", kill)
	if err != nil {
		return
	}
	v.added, v.address = true, strings.TrimSuffix(address(h.t, out), "/24")
}

func (v *victim) die(h *host, kill time.Duration) {
	_, err := h.killed(v.call, "DEL", kill)
	v.deleted = err == nil
	v.added = false // half of it may be gone
}

// killed calls the plugin and kills it, and it alone: its delegate lives on.
func (h *host) killed(c call, verb string, after time.Duration) (string, error) {
	c.verb = verb
	cmd := h.command(c)
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.WaitDelay = 100 * time.Millisecond // the delegate may hold on to the pipe
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	return out.String(), err
}

// examine collects the garbage, and holds the host against what the containers should have.
func (h *host) examine(victims []*victim) {
	t := h.t
	list := []string{"first/eth0"}
	want := map[string]string{}
	killed := 0
	for _, v := range victims {
		if v.added {
			list = append(list, v.id+"/eth0")
			if other := want[v.address]; other != "" {
				t.Errorf("%s and %s both have %s", other, v.id, v.address)
			}
			want[v.address] = v.id
		} else if !v.deleted {
			killed++
		}
	}
	t.Logf("%d stand, %d were left half done", len(want), killed)
	if killed == 0 || len(want) < len(victims)/10 {
		t.Error("the test has killed too few or too many")
	}
	h.must(call{verb: "GC", conf: valid(h.conf("1.1.0"), list...)})

	got := map[string]string{}
	for _, ip := range h.list("addresses/pods") {
		text, err := os.ReadFile(filepath.Join(h.dir, "addresses/pods", ip))
		if err != nil {
			t.Fatal(err)
		}
		got[ip], _, _ = strings.Cut(string(text), "\r\n")
	}
	for ip, id := range want {
		if got[ip] != id {
			t.Errorf("container %s has %s, but it is reserved for %q", id, ip, got[ip])
		}
	}
	for ip, id := range got {
		if want[ip] != id && id != "first" {
			t.Errorf("%s is reserved for %s, which is gone", ip, id)
		}
	}
	files := h.list("saved")
	if len(files) != len(list) {
		t.Errorf("%d files for %d containers: %v", len(files), len(list), files)
	}
	h.reachable(want)
	for _, v := range victims {
		if !v.added && slices.Contains(files, v.id) {
			t.Errorf("the file of %s is left", v.id)
		}
	}
}

// reachable pings every container from the host, and counts the interfaces.
func (h *host) reachable(want map[string]string) {
	for ip, id := range want {
		if out, err := h.inside("ping", "-c1", "-W5", ip); err != nil {
			h.t.Errorf("container %s does not answer: %s", id, out)
		}
	}
	var links []struct {
		IfName string `json:"ifname"`
	}
	text := h.run("ip", "-n", h.netns, "-j", "link", "show", "type", "veth")
	if err := json.Unmarshal([]byte(text), &links); err != nil {
		h.t.Fatal(err)
	}
	if len(links) != len(want)+1 {
		h.t.Errorf("%d interfaces for %d containers", len(links), len(want)+1)
	}
}
