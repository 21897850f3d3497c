package main_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestARefusedConfigurationDoesNotHoldUpTheEndOfAContainer(t *testing.T) {
	for _, tt := range []struct{ name, wrong, says string }{
		{"a field of another type", `"delegate":{"mtu":"1450"}`, "failed to load netconf"},
		{"an IPAM section that host-local refuses", `"ipam":{"routes":[{"dst":"192.0.2.0/24"}],"resolvConf":7}`,
			"cannot unmarshal"},
		{"values that exclude each other", `"delegate":{"hairpinMode":true,"promiscMode":true}`,
			"cannot set hairpin mode and promiscuous mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			pod := h.namespace("pod")
			wrong := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.1.0", tt.wrong)}
			h.refused(wrong, 999, tt.says)
			// With the wrong configuration still there, and with the corrected one.
			wrong.verb = "DEL"
			h.must(wrong)
			h.clean()
			wrong.verb = "ADD"
			h.refused(wrong, 999, tt.says)
			right := call{verb: "DEL", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.1.0")}
			h.must(right)
			h.clean()
			h.refused(wrong, 999, tt.says)
			right.verb = "ADD"
			// A bridge that has lost its only port has the MAC address 0, which the bridge plugin reads and then tries to set.
			// The bridge has its IP address by then, so the runtime's next attempt does not come there.
			if _, err := h.try(right); err != nil {
				if !strings.Contains(err.Error(), "could not set bridge's mac") {
					t.Fatal(err)
				}
				h.must(right)
			}
			right.verb = "DEL"
			h.must(right)
			h.clean()
		})
	}
}

func TestADelegateThatRefusesInWordsOfItsOwnIsKnownByThem(t *testing.T) {
	h := newHost(t)
	const script = `grep -q '"mode":"odd"' $(dirname $0)/$CNI_COMMAND.$CNI_CONTAINERID && { echo '{"code":101,"msg":"odd mode"}'; exit 1; }
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0"}'; exit 0`
	path, notes := h.fake("special", script)
	c := call{
		verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), path: path,
		conf: h.conf("1.1.0", `"delegate":{"type":"special","mode":"odd"}`),
	}
	h.refused(c, 101, "ADD: odd mode", "DEL: odd mode")
	c.verb = "DEL"
	h.must(c)
	h.clean()
	// The saved configuration, the present one, and what freeing needs alone.
	if got, want := verbs(t, notes), []string{"ADD", "DEL", "DEL", "DEL", "DEL"}; !slices.Equal(got, want) {
		t.Errorf("the delegate was called with %v, want %v", got, want)
	}
}

func TestASubnetFileThatNeverEndsIsAnError(t *testing.T) {
	h := newHost(t)
	file := h.dir + "/subnet.env"
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	for want, replace := range map[string]func() error{
		"is a FIFO":   func() error { return syscall.Mkfifo(file, 0o644) },
		"is a device": func() error { return os.Symlink("/dev/zero", file) },
		"larger than": func() error { return os.WriteFile(file, make([]byte, 2<<20), 0o644) },
	} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		h.refused(c, 11, want)
	}
	h.clean()
}

func TestTwoNetworksOnOneBridgeAreToldToSeparateThem(t *testing.T) {
	h := newHost(t)
	first := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	ip := strings.TrimSuffix(address(t, h.must(first)), "/24")
	h.writeEnv("FLANNEL_NETWORK=10.6.0.0/16\nFLANNEL_SUBNET=10.6.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
	second := call{verb: "ADD", id: "c2", ifName: "eth0", netns: h.namespace("pod")}
	second.conf = strings.Replace(h.conf("1.1.0"), `"name":"pods"`, `"name":"blue"`, 1)
	h.refused(second, 100, `cni0 belongs to the network "pods"`, `"delegate": {"bridge": "cni1"}`)
	_, err := h.try(second)
	for _, bad := range []string{"forceAddress", "restart"} {
		if strings.Contains(err.Error(), bad) {
			t.Errorf("%q advises what breaks the other network: %s", err, bad)
		}
	}
	h.refused(call{verb: "STATUS", conf: second.conf}, 51, `"pods"`)

	// Nothing saved tells whose the bridge is.
	outsider := second
	outsider.conf = strings.Replace(second.conf, "/saved", "/elsewhere", 1)
	h.refused(outsider, 100, "if these containers belong to another network", `"bridge"`, "another range before")

	second.conf = strings.Replace(h.conf("1.1.0", `"delegate":{"bridge":"cni1"}`), `"name":"pods"`, `"name":"blue"`, 1)
	if got := address(t, h.must(second)); got != "10.6.2.2/24" {
		t.Errorf("got address %s, want 10.6.2.2/24", got)
	}
	h.run("ip", "netns", "exec", h.netns, "ping", "-c1", "-W5", ip)
}
