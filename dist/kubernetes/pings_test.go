//go:build kubernetes

package kubernetes_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// loseNothing does something while a pod pings another, ten times a second, and checks that each ping was answered. The
// pods are on other nodes than the given ones.
func (s *story) loseNothing(t *testing.T, do func(), without ...*node) {
	t.Helper()
	p := s.plane
	var from string
	var to netip.Addr
	for name, addrs := range s.pods {
		switch {
		case slices.ContainsFunc(without, func(n *node) bool { return n.name == s.at[name] }):
		case from == "":
			from = name
		default:
			to = addrs[0]
		}
	}
	done := make(chan string, 1)
	go func() {
		out, err := p.kubectl("exec", from, "--", "/bin/busybox", "sh", "-c", "busybox rm -f /tmp/stop;"+
			"busybox ping -i 0.1 "+to.String()+
			" & while ! test -e /tmp/stop; do echo >/tmp/started; busybox sleep 0.1; done; kill -INT $!; wait $!; busybox rm "+
			"-f /tmp/started")
		done <- fmt.Sprint(out, err)
	}()
	p.await(func() error {
		_, err := p.kubectl("exec", from, "--", "/bin/busybox", "test", "-e", "/tmp/started")
		return err
	})
	do()
	p.must("exec", from, "--", "/bin/busybox", "touch", "/tmp/stop")
	out := <-done
	sent, lost := lostPings(out)
	if lost > 0 || sent == 0 {
		t.Errorf("%d pings of %d from %s to %s were lost: %s", lost, sent, from, to, out)
	}
	t.Logf("%d pings", sent)
}

// answered finds the number of each ping that was answered, in the output of busybox.
var answered = regexp.MustCompile(`(?m) seq=(\d+) `)

// lostPings returns how many pings were sent up to the last one that was answered, and how many of these were lost. The
// summary counts one that was on its way when ping was ended, and rounds.
func lostPings(out string) (sent, lost int) {
	seen := map[string]bool{}
	for _, m := range answered.FindAllStringSubmatch(out, -1) {
		seen[m[1]] = true
		n, _ := strconv.Atoi(m[1]) // digits
		sent = max(sent, n+1)
	}
	return sent, sent - len(seen)
}
