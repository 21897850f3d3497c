package main_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

const env99 = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.99.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"

func TestEmptyBridgeGetsTheAddressOfTheNewSubnet(t *testing.T) {
	h := newHost(t)
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	h.must(c)
	c.verb = "DEL"
	h.must(c)
	h.writeEnv(env99)
	h.must(call{verb: "STATUS", conf: c.conf})

	// Many at a time: one changes the address, and none takes another's interface for an old container's.
	const pods = 8
	var wait sync.WaitGroup
	for i := range pods {
		c := call{verb: "ADD", id: fmt.Sprintf("c%d", i), ifName: "eth0", netns: h.namespace("pod"), conf: c.conf}
		wait.Go(func() {
			if _, err := h.try(c); err != nil {
				t.Errorf("ADD %s: %v", c.id, err)
			}
		})
	}
	wait.Wait()
	if got := h.run("ip", "-n", h.netns, "-4", "-o", "addr", "show", "cni0"); !strings.Contains(got, "10.5.99.1/24") ||
		strings.Contains(got, "10.5.34.1") {
		t.Errorf("bridge has %s, want 10.5.99.1/24 alone", got)
	}
	if got := len(h.list("addresses/pods")); got != pods {
		t.Errorf("%d addresses are reserved, want %d", got, pods)
	}
}

func TestUsedBridgeKeepsItsAddressAndTheErrorSaysTheWayOut(t *testing.T) {
	h := newHost(t)
	first := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	ip := strings.TrimSuffix(address(t, h.must(first)), "/24")
	h.writeEnv(env99)
	next := first
	next.id, next.netns = "c2", h.namespace("pod")
	h.refused(next, 100, "subnet is 10.5.99.0/24 now",
		"cni0 still serves 1 interface(s) of containers with addresses of 10.5.34.0/24", "restart them", "forceAddress")
	h.refused(call{verb: "STATUS", conf: first.conf}, 51, "10.5.34.0/24")
	h.run("ip", "netns", "exec", h.netns, "ping", "-c1", "-W5", ip)

	first.verb = "DEL"
	h.must(first)
	if got := address(t, h.must(next)); got != "10.5.99.2/24" {
		t.Errorf("got address %s, want 10.5.99.2/24", got)
	}
	h.must(call{verb: "STATUS", conf: first.conf})
}

func TestAdministratorDecidesAboutTheAddressOfAUsedBridge(t *testing.T) {
	h := newHost(t)
	h.must(call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")})
	h.writeEnv(env99)
	c := call{verb: "ADD", id: "c2", ifName: "eth0", netns: h.namespace("pod"),
		conf: h.conf("1.1.0", `"delegate":{"forceAddress":false}`)}
	h.refused(c, 999, "already has an IP address")
	c.conf = h.conf("1.1.0", `"delegate":{"forceAddress":true}`)
	h.must(c)
}

func TestAnAddressOfTheAdministratorsBehindOursIsNoOldOne(t *testing.T) {
	h := newHost(t)
	h.must(call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")})
	h.run("ip", "-n", h.netns, "addr", "add", "192.0.2.1/32", "dev", "cni0")
	h.must(call{verb: "ADD", id: "c2", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")})
}

func TestEmptyBridgeLosesTheOldIPv6Address(t *testing.T) {
	const line = "FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=fd00:5:0:%s::1/64\n"
	h := newHost(t)
	h.writeEnv(env34 + fmt.Sprintf(line, "22"))
	c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: h.namespace("pod"), conf: h.conf("1.1.0")}
	h.must(c)
	c.verb = "DEL"
	h.must(c)
	h.writeEnv(env34 + fmt.Sprintf(line, "63"))
	c.verb = "ADD"
	h.must(c)
	got := h.run("ip", "-n", h.netns, "-6", "-o", "addr", "show", "cni0", "scope", "global") +
		h.run("ip", "-n", h.netns, "-6", "route")
	if !strings.Contains(got, "fd00:5:0:63::1/64") || strings.Contains(got, "fd00:5:0:22:") {
		t.Errorf("got %s, want addresses and routes of fd00:5:0:63::/64 alone", got)
	}
}
