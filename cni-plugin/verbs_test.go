package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestContainerIsAttachedAndDetachedInEveryVersion(t *testing.T) {
	h := newHost(t)
	for _, v := range []string{"0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(v, func(t *testing.T) {
			pod := h.namespace("pod")
			c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf(v)}
			result := h.must(c)
			var got struct{ CNIVersion string }
			if err := json.Unmarshal([]byte(result), &got); err != nil || got.CNIVersion != v {
				t.Errorf("result in version %q (%v), want %q:\n%s", got.CNIVersion, err, v, result)
			}
			if a := address(t, result); !strings.HasPrefix(a, "10.5.34.") {
				t.Errorf("address %q, want one of 10.5.34.0/24", a)
			}
			h.run("ip", "netns", "exec", h.netns, "ping", "-c1", "-W5", strings.TrimSuffix(address(t, result), "/24"))
			if mtu := h.run("ip", "-n", pod, "link", "show", "eth0"); !strings.Contains(mtu, "mtu 1450") {
				t.Errorf("got %s, want MTU 1450", mtu)
			}
			if routes := h.run("ip", "-n", pod, "route"); !strings.Contains(routes, "10.5.0.0/16 via 10.5.34.1") {
				t.Errorf("no route to the network: %s", routes)
			}
			for range 2 {
				c.verb = "DEL"
				h.must(c)
			}
			h.clean()
		})
	}
}

func TestVersionNamesEverySpecification(t *testing.T) {
	h := newHost(t)
	out := h.must(call{verb: "VERSION"})
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		if !strings.Contains(out, `"`+v+`"`) {
			t.Errorf("VERSION does not name %s: %s", v, out)
		}
	}
}

func TestSavedConfigurationIsWhatTheDelegateGot(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	h.must(call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod,
		conf: h.conf("1.1.0", `"delegate":{"hairpinMode":true}`)})
	path := filepath.Join(h.dir, "saved", "c1")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, mode %v, want 0600", err, info.Mode())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "flanneld.attachment")
	_ = json.Unmarshal(fmt.Appendf(nil,
		`{"cniVersion":"1.1.0","name":"pods","type":"bridge","hairpinMode":true,"ipMasq":false,"mtu":1450,"isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.5.34.0/24"}]],"routes":[{"dst":"10.5.0.0/16"}]}}`,
		h.dir+"/addresses"), &want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("saved configuration (-got +want):\n%s", diff)
	}
}

func TestDetachingNeedsNeitherSubnetFileNorNamespaceNorAFileThatCanBeRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(h *host, pod string)
		netns bool
	}{
		{"subnet file gone", func(h *host, _ string) { os.Remove(h.dir + "/subnet.env") }, true},
		{"namespace gone", func(h *host, pod string) { h.run("ip", "netns", "del", pod) }, true},
		{"namespace unmounted, its file there", func(h *host, pod string) { h.run("umount", "/run/netns/"+pod) }, true},
		{"no namespace given", func(h *host, pod string) { h.run("ip", "netns", "del", pod) }, false},
		{"saved file empty", func(h *host, _ string) { os.Truncate(h.dir+"/saved/c1", 0) }, true},
		{"saved file cut off", func(h *host, _ string) { os.Truncate(h.dir+"/saved/c1", 40) }, true},
		{"all at once", func(h *host, pod string) {
			os.Remove(h.dir + "/subnet.env")
			os.Truncate(h.dir+"/saved/c1", 0)
			h.run("ip", "netns", "del", pod)
		}, true},
		{"subnet changed", func(h *host, _ string) { h.writeEnv(strings.ReplaceAll(env34, "10.5.34", "10.5.99")) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			pod := h.namespace("pod")
			c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.0.0")}
			h.must(c)
			tt.spoil(h, pod)
			if c.verb = "DEL"; !tt.netns {
				c.netns = ""
			}
			h.must(c)
			h.must(c)
			h.clean()
		})
	}
}

func TestFileOfAFormerFlannelIsFreed(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.1.0")}
	for _, verb := range []string{"DEL", "GC"} {
		c.verb = "ADD"
		h.must(c)
		path := h.dir + "/saved/c1"
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var conf map[string]json.RawMessage
		if err := json.Unmarshal(text, &conf); err != nil {
			t.Fatal(err)
		}
		delete(conf, "flanneld.attachment")
		text, _ = json.Marshal(conf)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.verb = verb; verb == "GC" {
			h.run("ip", "netns", "del", pod)
		}
		h.must(c)
		h.clean()
	}
}

func TestEachInterfaceOfAContainerHasAFile(t *testing.T) {
	h := newHost(t)
	pod := h.namespace("pod")
	conf := h.conf("1.1.0")
	first := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: conf}
	second := first
	second.ifName = "net1"
	for _, order := range [][]call{{first, second}, {second, first}} {
		h.must(first)
		h.must(second)
		if got, want := h.list("saved"), []string{"c1", "c1:net1"}; !slices.Equal(got, want) {
			t.Errorf("saved %v, want %v", got, want)
		}
		for i, c := range order {
			c.verb = "DEL"
			h.must(c)
			if got := h.list("addresses/pods"); len(got) != 1-i {
				t.Errorf("after %d DELs %v is reserved", i+1, got)
			}
		}
		h.clean()
	}
}

func TestHostIsNeverAttachedOrDetached(t *testing.T) {
	h := newHost(t)
	for _, verb := range []string{"ADD", "DEL", "CHECK"} {
		h.refused(call{verb: verb, id: "c1", ifName: "eth0", netns: h.netns, conf: h.conf("1.0.0")}, 8,
			"namespace that the plugin runs in")
	}
	h.clean()
}

func TestDualStackContainerHasBothAddresses(t *testing.T) {
	h := newHost(t)
	h.writeEnv(env34 + "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:22::1/64\n")
	pod := h.namespace("pod")
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.1.0")}
	result := h.must(c)
	for _, want := range []string{"10.5.34.2/24", "fd00:5:0:22::2/64"} {
		if !strings.Contains(result, want) {
			t.Errorf("no %s in the result:\n%s", want, result)
		}
	}
	c.verb = "DEL"
	h.must(c)
	h.clean()
}
