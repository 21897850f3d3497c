package lab_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"flanneld/lab"
)

// inner is in each of the packets by which a transfer goes from pod to pod, again and again.
const inner = "what only pods may read"

// wantEncrypted fails if something of a packet between the two pods is on the wire, or packets go to other ports, or
// none do.
func wantEncrypted(t *testing.T, c *lab.Capture, pods [2]*lab.Pod, ports string) {
	t.Helper()
	seen := c.Seen()
	if what := shown(seen, secretsOf(pods)); len(what) > 0 {
		t.Errorf("datagrams show %s", strings.Join(what, ", "))
	}
	tunnelled := map[string]int{} // bytes by port
	for _, d := range seen {
		tunnelled[fmt.Sprint(d.Dst.Port())] += d.Size
	}
	for port := range strings.FieldsSeq(ports) {
		if tunnelled[port] < 1<<20 {
			t.Errorf("%d bytes to port %s, of %v", tunnelled[port], port, tunnelled)
		}
	}
}

// secretsOf returns what a packet between two pods consists of, by its name. An IP header has source and destination
// side by side. One IPv4 address alone would not do: its four bytes occur by chance once in 4 GiB of encrypted data.
func secretsOf(pods [2]*lab.Pod) map[string]string {
	secrets := map[string]string{"the contents": inner}
	for i, a := range pods[0].Addrs {
		b := pods[1].Addrs[i]
		secrets[fmt.Sprintf("the addresses %s and %s", a, b)] = string(append(a.AsSlice(), b.AsSlice()...))
		secrets[fmt.Sprintf("the addresses %s and %s", b, a)] = string(append(b.AsSlice(), a.AsSlice()...))
	}
	return secrets
}

// shown returns the names of the secrets that datagrams show.
func shown(seen []lab.Datagram, secrets map[string]string) []string {
	found := map[string]bool{}
	for _, d := range seen {
		for name, secret := range secrets {
			if bytes.Contains(d.Payload, []byte(secret)) {
				found[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TestCapturesShowWhatIsNotEncrypted is the counterpart of those that want nothing to be shown.
func TestCapturesShowWhatIsNotEncrypted(t *testing.T) {
	t.Parallel()
	s := newSite(t, network{"vxlan", lab.Dual}, 2)
	wire := must[*lab.Capture](t)(s.hosts[0].Capture("eth0"))
	defer wire.Stop()
	for _, a := range s.pods[1].Addrs {
		s.transfer(s.pods[0].Namespace, s.pods[1].Namespace, a, 1<<20)
	}
	secrets := secretsOf([2]*lab.Pod{s.pods[0], s.pods[1]})
	if got, want := shown(wire.Seen(), secrets), slices.Sorted(maps.Keys(secrets)); !slices.Equal(got, want) {
		t.Errorf("datagrams show %q, want %q", got, want)
	}
}
