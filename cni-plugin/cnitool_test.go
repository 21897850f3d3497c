package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cnitool is the runtime of the CNI project, with the sample of a network's configuration as packages install it.
type cnitool struct {
	*host
	conf string // folder
}

// newCnitool takes a sample from dist/cni, and puts the paths of this host into it.
func newCnitool(t *testing.T, sample string) cnitool {
	t.Helper()
	h := newHost(t)
	text, err := os.ReadFile(filepath.Join("..", "dist", "cni", sample))
	if err != nil {
		t.Fatal(err)
	}
	paths := fmt.Sprintf(`"type": "flannel", "subnetFile": %q, "dataDir": %q, "ipam": {"dataDir": %q},`, h.dir+
		"/subnet.env", h.dir+"/saved", h.dir+"/addresses")
	conf := strings.Replace(string(text), `"type": "flannel",`, paths, 1)
	conf = strings.Replace(conf, `"name": "flannel"`, `"name": "pods"`, 1)
	if err := os.Mkdir(h.dir+"/net.d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.dir+"/net.d/10-flannel.conflist", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its cache, if nobody else's is in it
		_ = os.Remove("/var/lib/cni/results")
		_ = os.Remove("/var/lib/cni")
	})
	return cnitool{h, h.dir + "/net.d"}
}

// call runs cnitool for a pod's namespace; capabilities are those that a runtime would pass on.
func (c cnitool) call(verb, pod, capabilities string) (string, error) {
	cmd := exec.Command("ip", "netns", "exec", c.netns, "cnitool", verb, "pods", "/run/netns/"+pod)
	cmd.Env = append(os.Environ(), "PATH="+c.path+":"+os.Getenv("PATH"), "CNI_PATH="+c.path, "NETCONFPATH="+c.conf,
		"CAP_ARGS="+capabilities)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c cnitool) must(verb, pod, capabilities string) string {
	c.t.Helper()
	out, err := c.call(verb, pod, capabilities)
	if err != nil {
		c.t.Fatalf("cnitool %s: %v\n%s", verb, err, out)
	}
	return out
}

func TestSampleServesCnitoolThroughEveryVerb(t *testing.T) {
	c := newCnitool(t, "spec-1.1/10-flannel.conflist")
	pod, stale := c.namespace("pod"), c.namespace("pod")
	capabilities := `{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],"bandwidth":{"ingressRate":100000000,"ingressBurst":1000000}}`
	c.must("status", pod, "")
	result := c.must("add", pod, capabilities)
	c.must("add", stale, "")
	c.must("check", pod, capabilities)
	c.published(pod, "8080", "80")
	if out := c.run("ip", "netns", "exec", c.netns, "tc", "qdisc"); !strings.Contains(out, "tbf") {
		t.Errorf("no limit of the bandwidth: %s", out)
	}
	if !strings.Contains(result, "10.5.34.2/24") {
		t.Errorf("result %s, want address 10.5.34.2/24", result)
	}

	c.writeEnv(strings.ReplaceAll(env34, "10.5.34", "10.5.99"))
	if out, err := c.call("check", pod, capabilities); err == nil ||
		!strings.Contains(out, "10.5.34.0/24, but this host's subnet is 10.5.99.0/24") {
		t.Errorf("check after the subnet has changed: %v, %s", err, out)
	}
	if out, err := c.call("status", pod, ""); err == nil || !strings.Contains(out, "still serves 2 interface(s)") {
		t.Errorf("status after the subnet has changed: %v, %s", err, out)
	}
	c.writeEnv(env34)
	c.must("del", pod, capabilities)
	if got := c.list("saved"); len(got) != 1 {
		t.Errorf("saved %v, want the other pod's file alone", got)
	}
	c.must("gc", pod, "")
	c.clean()
	if out, _ := c.inside("iptables-save", "-t", "nat"); strings.Contains(out, "10.5.34.2") {
		t.Errorf("rules of the published port are left: %s", out)
	}
}

func TestSampleForOlderRuntimesAttachesAndDetaches(t *testing.T) {
	c := newCnitool(t, "10-flannel.conflist")
	pod := c.namespace("pod")
	c.must("add", pod, "")
	c.must("check", pod, "")
	if out := c.run("ip", "-n", pod, "route"); !strings.Contains(out, "default via 10.5.34.1") {
		t.Errorf("no default route: %s", out)
	}
	c.must("del", pod, "")
	c.clean()
}

func TestSamplesDifferInTheVersionAlone(t *testing.T) {
	var texts []string
	for _, sample := range []string{"10-flannel.conflist", "spec-1.1/10-flannel.conflist"} {
		text, err := os.ReadFile(filepath.Join("..", "dist", "cni", sample))
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(text) {
			t.Errorf("%s is no JSON", sample)
		}
		texts = append(texts, string(text))
	}
	if want := strings.Replace(texts[0], "1.0.0", "1.1.0", 1); texts[1] != want {
		t.Errorf("got %s, want %s", texts[1], want)
	}
}

// published fails the test unless a port of the host leads to a server in the pod.
func (c cnitool) published(pod, hostPort, podPort string) {
	c.t.Helper()
	server := exec.Command("ip", "netns", "exec", pod, "busybox", "nc", "-ll", "-p", podPort, "-e", "/bin/echo", "hello")
	if err := server.Start(); err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	client := c.namespace("client")
	c.run("ip", "-n", client, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", c.netns)
	c.run("ip", "-n", client, "addr", "add", "192.0.2.2/24", "dev", "up0")
	c.run("ip", "-n", client, "link", "set", "up0", "up")
	c.run("ip", "-n", c.netns, "addr", "add", "192.0.2.1/24", "dev", "down0")
	c.run("ip", "-n", c.netns, "link", "set", "down0", "up")
	c.run("ip", "-n", pod, "route", "replace", "default", "via", "10.5.34.1")
	c.await("the published port does not answer", func() string {
		out, err := exec.Command("ip", "netns", "exec", client, "busybox", "nc", "-w", "2", "192.0.2.1",
			hostPort).CombinedOutput()
		if strings.Contains(string(out), "hello") {
			return ""
		}
		return fmt.Sprint(string(out), err)
	})
	c.run("ip", "-n", client, "link", "del", "up0")
}
